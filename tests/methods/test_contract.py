"""The contract every method passes: a new method adds a row, and nothing else, to be tested here.

Each line is a bug that was found in published code.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tiny
import torch
from by_hand import fn_of, hand_written, keywords
from ddp_worker import FEW
from method_rows import FIRST_OF_PATH, IDS, LR, ROWS, three_steps, trained

from expunge import level_losses, losses
from expunge.combine import PrimalDual
from expunge.forward.view import ForwardPass, see
from expunge.method import Activations, build, entries
from expunge.models import attach_lora

every = pytest.mark.parametrize(("name", "parameters"), ROWS, ids=IDS)
slow = pytest.mark.slow  # all rows together; of each path through the trainer one row is quick
each_path = pytest.mark.parametrize(
    ("name", "parameters"), [pytest.param(*row, marks=[] if row in FIRST_OF_PATH else slow) for row in ROWS], ids=IDS
)
LOGITS = [row for row in ROWS if "rmu" not in row[0]]  # the others run no head: tests/test_layers.py
reads_logits = pytest.mark.parametrize(("name", "parameters"), LOGITS, ids=[IDS[ROWS.index(row)] for row in LOGITS])


# -- losses of a method on one batch ----------------------------------------------------------------------------------------
MODEL, OTHER = tiny.model(0), tiny.model(1)  # their weights are read only


def objective_values(name, parameters, batch_of):
    """Each objective's loss and gradient on fixed batches, the reference a model of another seed."""
    m, ref = MODEL, OTHER
    out = {}
    for role, o in build(name, parameters).objectives.items():
        views = []
        for stream in o.on:
            b = batch_of(stream)
            views.append(see(m, b, reference=lambda b=b: see(ref, b, grad=False)))
        loss = o.loss(*views)
        grads = torch.autograd.grad(loss, list(m.parameters()), allow_unused=True)
        out[role] = (loss.detach(), torch.cat([torch.zeros(0) if g is None else g.flatten() for g in grads]))
    return out


STREAMS = {"forget": tiny.examples(0, 4), "retain": tiny.examples(100, 4), "alternate": tiny.examples(200, 4)}


@every
def test_padding_changes_nothing(name, parameters):
    def wide(stream):
        b = tiny.batch(STREAMS[stream])
        pad = torch.full((4, 7), 0)
        return {
            "input_ids": torch.cat([b["input_ids"], pad + 5], 1),
            "attention_mask": torch.cat([b["attention_mask"], pad], 1),
            "labels": torch.cat([b["labels"], pad - 100], 1),
        }

    narrow = objective_values(name, parameters, lambda s: tiny.batch(STREAMS[s]))
    for role, (loss, grad) in objective_values(name, parameters, wide).items():
        torch.testing.assert_close(loss, narrow[role][0])
        torch.testing.assert_close(grad, narrow[role][1], atol=1e-5, rtol=1e-3)


@reads_logits
def test_no_gradient_where_there_is_no_label(name, parameters):
    """The logits that predict prompt and padding get exactly no gradient."""
    torch.manual_seed(0)
    for o in build(name, parameters).objectives.values():
        leaves, views = [], []
        for stream in o.on:
            b = tiny.batch(STREAMS[stream])
            z = torch.randn(*b["labels"].shape, tiny.V, requires_grad=True)
            leaves.append((z, b["labels"]))
            reference = ForwardPass.from_logits(torch.randn_like(z), b["labels"])
            views.append(ForwardPass.from_logits(z, b["labels"], reference=reference))
        o.loss(*views).backward()
        if fn_of(o) is losses.jensun:
            assert leaves.pop()[0].grad is None  # it reads the refusal's labels only
        for z, labels in leaves:
            predicts = torch.cat([labels[:, 1:] != -100, torch.zeros(len(labels), 1, dtype=torch.bool)], 1)
            assert (z.grad[~predicts] == 0).all()
            for i in range(1, 1 + keywords(o).get("ignore_first", 0)):  # of each row, what CE-U leaves alone
                predicts &= ~(predicts & (predicts.cumsum(1) == i))
            moved = z.grad[predicts].abs().sum(-1) > 0
            if fn_of(o) is level_losses.above_level:  # tokens at their level are left alone, too
                (own,) = views
                assert torch.equal(moved, own.token_logp > own.reference.token_logp) and 0 < moved.sum() < len(moved)
            else:
                assert moved.all()


@reads_logits
def test_a_constant_on_all_logits_changes_nothing(name, parameters):
    torch.manual_seed(0)
    for o in build(name, parameters).objectives.values():
        values = []
        for shift in (0.0, 30.0):
            views = []
            for k, stream in enumerate(o.on):
                b = tiny.batch(STREAMS[stream])
                g = torch.Generator().manual_seed(k)
                z = torch.randn(*b["labels"].shape, tiny.V, generator=g)
                reference = ForwardPass.from_logits(torch.randn(z.shape, generator=g), b["labels"])
                views.append(ForwardPass.from_logits(z + shift, b["labels"], reference=reference))
            values.append(o.loss(*views))
        torch.testing.assert_close(values[0], values[1], atol=1e-3, rtol=1e-4)


# -- training ---------------------------------------------------------------------------------------------------------------
@every
def test_micro_batches_change_nothing(name, parameters):
    """4×1 = 2×2, with rows of unequal length: a mean is a mean over the optimizer step; for a row of each way through the
    trainer also = 1×4."""
    if parameters.get("batch_mean"):
        pytest.skip("the compatibility switch averages inside a micro-batch")
    row = ROWS.index((name, parameters))
    deltas = [tiny.delta(three_steps(row).model, MODEL)]
    for size, cuts in [(2, 2), (1, 4)] if IDS[row] in FEW else [(2, 2)]:
        t = trained(name, parameters, per_device_train_batch_size=size, gradient_accumulation_steps=cuts)
        deltas.append(tiny.delta(t.model, MODEL))
    assert deltas[0].norm() > 1e-4
    for d in deltas[1:]:
        tiny.assert_same_steps(d, deltas[0], t.method, atol=2e-5, rtol=2e-3)


@every
def test_three_steps_equal_a_hand_written_loop(name, parameters):
    """Invariance alone passes when every configuration is wrong in the same way; this pins the trajectory itself."""
    t = three_steps(ROWS.index((name, parameters)))
    start = (t.combine.budget_of([0.0]) or {}).get("start", 1.0)
    m, multiplier = hand_written(build(name, parameters), start=start)
    moved = tiny.delta(m, MODEL)
    assert moved.norm() > 1e-4
    tiny.assert_same_steps(tiny.delta(t.model, MODEL), moved, t.method, atol=5e-5, rtol=0)
    if multiplier is not None:
        assert float(t.combine.weights(torch.zeros(2))[1]) == pytest.approx(multiplier, rel=1e-4)


@each_path
def test_clipping_bounds_the_combined_gradient(name, parameters):
    by_sgd = replace(build(name, parameters), optimizer=None)
    t = tiny.trainer(by_sgd, max_grad_norm=1e-3, max_steps=1, learning_rate=LR)
    t.train()
    moved = tiny.delta(t.model, MODEL).norm().item()
    assert moved == pytest.approx((t.method.negate or 1) * LR * 1e-3, rel=1e-2)


@each_path
def test_resume_equals_uninterrupted_bit_for_bit(name, parameters, tmp_path):
    kw = {
        "save_strategy": "steps",
        "save_steps": 2,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "max_steps": 4,
    }
    method = build(name, parameters)
    whole = tiny.trainer(method, out=str(tmp_path / "whole"), **kw)
    whole.train()
    again = tiny.trainer(method, out=str(tmp_path / "again"), **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert again.state.global_step == 4 and len(again.state.log_history) == len(whole.state.log_history)
    assert torch.equal(tiny.delta(again.model, whole.model), torch.zeros_like(tiny.delta(whole.model, whole.model)))
    if isinstance(whole.combine, PrimalDual):
        assert again.combine.state_dict() == whole.combine.state_dict()


@each_path
def test_lora_trains_the_adapter_only(name, parameters):
    m = attach_lora(tiny.model(), r=2, alpha=4, seed=0)
    frozen = {n: p.detach().clone() for n, p in m.named_parameters() if not p.requires_grad}
    before = {n: p.detach().clone() for n, p in m.named_parameters() if p.requires_grad}
    t = trained(name, parameters, model=m, max_steps=2)
    assert t.reference.copy is None  # with LoRA the reference is the model with the adapter off
    for n, p in m.named_parameters():
        if n in frozen:
            assert torch.equal(p, frozen[n])
    assert any(not torch.equal(p, before[n]) for n, p in m.named_parameters() if n in before)


@every
def test_the_reference_is_built_only_if_asked_for(name, parameters):
    method = build(name, parameters)
    t = three_steps(ROWS.index((name, parameters)))
    wants_logits = any(o.reference == "logits" for o in method.objectives.values())
    wants_logp = any(o.reference == "token_logp" for o in method.objectives.values())
    wants_activations = any(isinstance(o.reference, Activations) for o in method.objectives.values())
    assert (t.reference.activations is not None) == wants_activations
    assert (t.reference.hidden is not None) == wants_logits and t.reference.copy is None
    assert (t.reference.logp is not None) == wants_logp
    if wants_logp:
        streams = {s for o in method.objectives.values() if o.reference == "token_logp" for s in o.on}
        assert set(t.reference.logp.rows) == streams


@every
def test_parameters_are_documented_and_serialisable(name, parameters):
    row = entries()[name]
    made = build(name, parameters)
    assert json.loads(json.dumps(dict(made.parameters))) == dict(made.parameters)
    assert made.name == name and set(made.parameters) == set(row.defaults)
    assert row.paper.startswith("arXiv:") or name == "level"  # of this library
    assert row.status in ("unreproduced", "reproduced") and row.summary.endswith(".")
