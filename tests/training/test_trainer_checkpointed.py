"""Activations that are computed again in the backward pass give the same steps, under every form of a reference."""

from __future__ import annotations

import pytest
import tiny
import torch

from expunge import methods
from expunge.models import attach_lora
from expunge.training import reference

STEER = {"layer": 0, "steering_coefficient": 20.0}
METHODS = {
    "pdu": lambda: methods.pdu(budget=3.0, warmup=0.0, multiplier=2.0),  # a fused head
    "npo": methods.npo,  # cached log-probabilities
    "npo_kl": lambda: methods.npo(retain="kl"),  # cached hidden states, or live
    "blur_npo": methods.blur_npo,  # two gradients
    "rmu": lambda: methods.rmu(**STEER, retain_weight=3.0, trainable="."),  # a model that ends early
    "soul_npo": methods.soul_npo,  # a curvature of its own passes
}


def moved(method, *, lora, **kw):
    m = tiny.model()
    m = attach_lora(m, r=2, alpha=4, seed=0) if lora else m
    start = {n: p.detach().clone() for n, p in m.named_parameters() if p.requires_grad}
    t = tiny.trainer(method(), m=m, learning_rate=0.05, max_steps=2, **kw)
    t.train()
    return torch.cat([(p.detach() - start[n]).flatten() for n, p in m.named_parameters() if n in start])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("live", [False, True], ids=["cached", "live"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", METHODS)
def test_gradient_checkpointing_gives_the_same_steps(name, lora, live, monkeypatch):
    if live:
        if name not in ("npo_kl", "rmu"):
            pytest.skip("its reference is in the cache in any case")
        monkeypatch.setattr(reference, "hidden_bytes", lambda *_: 1 << 60)  # a copy, or the adapter switched off
    plain = moved(METHODS[name], lora=lora)
    checkpointed = moved(METHODS[name], lora=lora, gradient_checkpointing=True)
    assert plain.norm() > 1e-4
    torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=1e-4)
