"""The reference a method asks for is the start model's, wherever it is held: cached, a copy, or the adapter switched off."""

from __future__ import annotations

import pytest
import tiny
import torch
from method_rows import PARAMETERS, trained
from transformers import LlamaForCausalLM

from expunge.forward.view import see
from expunge.method import build
from expunge.models import attach_lora
from expunge.training import cached, reference
from expunge.training.reference import live_view


def test_the_cached_reference_equals_a_frozen_copy_after_training_moved_the_model():
    t = trained("npo", {})
    rows = t.train_dataset.streams["forget"]
    b = tiny.batch(rows)
    own = see(t.model, b, grad=False)
    cached = t.reference.logp.view("forget", b, own)
    start = see(tiny.model(), b, grad=False)
    torch.testing.assert_close(cached.sequence_logp, start.sequence_logp)
    assert (own.sequence_logp - start.sequence_logp).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["logp", "hidden", "live"])
def test_the_reference_under_lora_is_the_target_without_dropout(kind):
    m = attach_lora(tiny.model(attention_dropout=0.5), r=2, alpha=4, seed=0).train()
    with torch.no_grad():
        for p in m.parameters():
            p.add_(0.1 * p.requires_grad)  # an adapter that does something
    t = tiny.trainer(build("npo", {"retain": "kl"}), m)
    stream = "forget" if kind == "logp" else "retain"
    b = tiny.batch(t.train_dataset.streams[stream])
    own = see(m, b, grad=False)
    if kind == "logp":
        view = t.reference.logp.view(stream, b, own)
    elif kind == "hidden":
        view = t.reference.hidden.view(stream, b, own)
    else:
        view = live_view(m.train(), None, b, t.method.objectives["retain"])
        assert m.training
    torch.testing.assert_close(view.token_logp, see(tiny.model().eval(), b, grad=False).token_logp)
    assert (own.token_logp - view.token_logp).abs().max() > 1e-2


@pytest.mark.parametrize("lora", [False, True])
def test_activations_a_copy_and_the_adapter_off_are_one_reference(lora, monkeypatch):
    def moved():
        m = attach_lora(tiny.model(), r=2, alpha=4, seed=0) if lora else tiny.model()
        t = trained("rmu", PARAMETERS["rmu"], model=m)
        return t, torch.cat([p.detach().flatten() for p in t.model.parameters()])

    cached, ours = moved()
    monkeypatch.setattr(reference, "hidden_bytes", lambda *_: float("inf"))  # too large to be worth it
    live, theirs = moved()
    assert cached.reference.activations and not live.reference.activations
    assert (live.reference.copy is None) == lora and cached.reference.copy is None
    if not lora:
        assert len(live.reference.copy.model.layers) == 1 and len(live.model.model.layers) == 2
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lora", [False, True])
def test_hidden_states_a_copy_and_the_adapter_off_are_one_reference(lora, monkeypatch):
    def moved(**kw):
        m = attach_lora(tiny.model(), r=2, alpha=4, seed=0) if lora else tiny.model()
        t = trained("grad_diff", {"retain": "kl"}, model=m, **kw)
        return t, torch.cat([p.detach().flatten() for p in t.model.parameters()])

    cached, ours = moved()
    monkeypatch.setattr(reference, "hidden_bytes", lambda *_: float("inf"))  # too large to be worth it
    live, theirs = moved()
    assert cached.reference.hidden and not live.reference.hidden
    assert (live.reference.copy is None) == lora and cached.reference.copy is None
    torch.testing.assert_close(ours, theirs)


def test_only_rows_that_the_run_sees_are_cached():
    t = tiny.trainer(build("npo", {"retain": "kl"}), max_steps=1)
    assert len(t.train_dataset.streams["retain"]) == 11
    assert len(t.reference.hidden.rows["retain"]) == 8  # one step of four, rounded up to the epoch of eight
    b = tiny.batch(t.train_dataset.streams["retain"])
    own = see(t.model, b)
    with pytest.raises(RuntimeError, match="was not cached"):
        t.reference.hidden.view("retain", b, own)


class SoftCapped(LlamaForCausalLM):
    """A model that works on what its head returns."""

    def forward(self, *args, **kw):
        out = super().forward(*args, **kw)
        out.logits = torch.tanh(out.logits)
        return out


def test_a_model_that_works_on_its_logits_gets_a_copy():
    m = SoftCapped(tiny.model().config)
    t = tiny.trainer(build("grad_diff", {"retain": "kl"}), m)
    assert t.reference.hidden is None and t.reference.copy is not None


def test_what_is_cached_leaves_the_device_while_the_next_batch_is_computed(monkeypatch):
    done = []

    def arrived(self):
        done.append("arrived")
        return torch.zeros(self._value.shape)

    def on_a_card(batch):
        done.append("computed")
        return torch.zeros(len(batch["index"]) * 2, 3, device="meta")

    monkeypatch.setattr(cached.Arriving, "tensor", arrived)
    batches = [{"index": [0, 1]}, {"index": [2]}, {"index": [3]}]
    rows = cached._collect(batches, on_a_card, lambda b: [2] * len(b["index"]))
    assert sorted(rows) == [0, 1, 2, 3] and all(
        row.device.type == "cpu" and row.shape == (2, 3) for row in rows.values()
    )
    assert done == ["computed", "computed", "arrived", "computed", "arrived", "arrived"]


@pytest.mark.parametrize(
    ("name", "parameters", "width"),
    [("npo", {}, {"token_logp": 1}), ("npo", {"retain": "kl"}, {"token_logp": 1, "hidden": 16}),
     ("rmu", PARAMETERS["rmu"], {"activations": 16}), ("simnpo", {}, {})],
)  # fmt: skip
def test_every_cache_is_in_main_memory_and_says_its_bytes(name, parameters, width):
    t = tiny.trainer(build(name, parameters))
    caches = {"token_logp": t.reference.logp, "hidden": t.reference.hidden, "activations": t.reference.activations}
    rows = {k: [r for s in c.rows.values() for r in s.values()] for k, c in caches.items() if c is not None}
    assert rows.keys() == width.keys() and all(r.device.type == "cpu" for of_kind in rows.values() for r in of_kind)
    wanted = {kind: sum(4 * width[kind] * len(r) for r in rows[kind]) for kind in rows}
    assert t.reference.described == ({"cached_bytes": wanted, "cached_in": "main memory"} if wanted else {})
