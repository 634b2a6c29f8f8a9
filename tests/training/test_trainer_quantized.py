"""Training on a base in nf4 takes the steps of training on the same base with its rounded weights in full precision."""

from __future__ import annotations

import copy

import method_rows
import pytest
import tiny
import torch

from expunge import methods, models
from expunge.method import build
from expunge.models import attach_lora, quantize
from expunge.training import reference

pytest.importorskip("bitsandbytes")
SIZES = {"hidden_size": 64, "intermediate_size": 64}  # nf4 has a scale for 64 weights
QUICK = ("pdu", "npo+retain=kl", "blur_npo", "pcgrad", "rmu", "soul_npo")
rows = [
    pytest.param(name, parameters, id=i, marks=[] if i in QUICK or name == "rmu" else pytest.mark.slow)
    for (name, parameters), i in zip(method_rows.ROWS, method_rows.IDS, strict=True)
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """The same model in nf4, and in full precision with the weights that nf4 rounds to."""
    import tiny_tokenizer
    from bitsandbytes.functional import dequantize_4bit

    place = tmp_path_factory.mktemp("nf4") / "model"
    tiny.model(**SIZES).save_pretrained(place)
    tiny_tokenizer.make().save_pretrained(place)
    held, rounded = models.load(place, quantize="nf4").model, models.load(place).model
    for name, module in held.named_modules():
        if quantize.is_quantized(getattr(module, "weight", module)):
            plain = dequantize_4bit(module.weight.data, module.weight.quant_state)
            rounded.get_submodule(name).weight.data.copy_(plain)
    return held, rounded


def moved(base, method, **kw):
    net = attach_lora(copy.deepcopy(base), r=2, alpha=4, seed=0)
    start = {n: p.detach().clone() for n, p in net.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in start.values())
    t = tiny.trainer(method, m=net, learning_rate=0.05, max_steps=2, **kw)
    t.train()
    return torch.cat([(p.detach() - start[n]).flatten() for n, p in net.named_parameters() if n in start])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("name", "parameters"), rows)
def test_every_method_steps_as_on_the_rounded_weights(bases, name, parameters):
    held, rounded = bases
    method = build(name, parameters)
    found, wanted = moved(held, method), moved(rounded, method)
    assert wanted.norm() > 1e-4
    tiny.assert_same_steps(found, wanted, method, atol=1e-5, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "method", [methods.blur_npo(retain="kl"), methods.pdu(budget=3.0, retain="kl")], ids=["blur", "pdu"]
)
def test_activation_checkpointing_and_the_adapter_switched_off(bases, method, reentrant, monkeypatch):
    monkeypatch.setattr(reference, "hidden_bytes", lambda *_: 1 << 60)  # no cache: the reference is the base itself
    plain = moved(bases[0], method)
    again = moved(
        bases[0], method, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": reentrant}
    )
    assert plain.norm() > 1e-4
    torch.testing.assert_close(again, plain, atol=1e-6, rtol=1e-4)
