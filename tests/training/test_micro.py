"""Out of memory: the step is done again in smaller micro-batches, and the weights are those of a run with them."""

from __future__ import annotations

import pytest
import tiny
import torch
from method_rows import IDS, LR, ROWS

from expunge import models
from expunge.errors import RunFailed
from expunge.method import build
from expunge.training import micro
from expunge.training.arguments import optimized
from expunge.training.trainer import UnlearningTrainer

ON_CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried")
# A Gramian and a multiplier; the others are slow.
FEW = ["blur_npo", "pdu+budget=3.0+warmup=0.0+multiplier=2.0"]
SLOW = [pytest.param(n, id=n, marks=() if n in FEW else pytest.mark.slow) for n in IDS]


class Raises(torch.autograd.Function):
    """Gives its input; the backward pass raises ``error``."""

    @staticmethod
    def forward(ctx, value, error):
        ctx.error = error
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad):
        raise ctx.error


def memory_for(monkeypatch, rows, *, of="retain", error=ON_CARD, step=1, nth=1, backward=False):
    """From optimizer step ``step`` on there is memory for ``rows`` rows of the objective ``of``; gives its passes."""
    whole, passes = UnlearningTrainer.objective_loss, []

    def loss(self, name, model, inputs):
        value, now = whole(self, name, model, inputs), self.state.global_step + 1
        many = max(len(inputs[s]["labels"]) for s in self.method.objectives[name].on)
        if name == of:
            passes.append((now, many))
            if many > rows and now >= step and passes.count((now, many)) >= nth:
                if not backward:
                    raise error
                return Raises.apply(value, error)
        return value

    monkeypatch.setattr(UnlearningTrainer, "objective_loss", loss)
    return passes


def run(method, size=4, parts=1, m=None, **kw):
    """Three steps over 9 rows, 4 a step: the third has one row."""
    kw = {"max_steps": 3, "learning_rate": LR} | kw
    rows = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
    t = tiny.trainer(method, m, data=tiny.paired(9, 4), **rows, **kw)
    t.train()
    return t


def moved(t):
    return tiny.delta(t.model, tiny.model())


@pytest.mark.parametrize("name", SLOW)
def test_the_steps_are_those_of_small_micro_batches(monkeypatch, name):
    """To the bit, and to rounding those of the large ones."""
    method = build(*ROWS[IDS.index(name)])
    kw = {"learning_rate": 1e-4} if method.optimizer else {}
    large, small = run(method, 4, 1, **kw), run(method, 2, 2, **kw)
    last = list(method.objectives)[-1]
    passes = memory_for(monkeypatch, 2, of=last)
    again = run(method, 4, 1, **kw)
    assert torch.equal(moved(again), moved(small)) and moved(again).abs().max() > 0
    assert again.fit.halved == [(1, 2)] and passes[0] == (1, 4) and {n for _, n in passes[1:]} == {1, 2}
    tiny.assert_same_steps(moved(again), moved(large), method, atol=1e-5, rtol=1e-4)
    other = ("seconds", "epoch")  # transformers counts an epoch's share in micro-batches
    logs = [[{k: v for k, v in h.items() if k not in other} for h in t.state.log_history[:-1]] for t in (again, small)]
    assert logs[0] == [pytest.approx(line) for line in logs[1]] and len(logs[0]) == 3


@pytest.mark.parametrize(
    ("error", "of", "backward"), [(ON_CARD, "retain", True), (ON_CPU, "forget", False), (MemoryError(), "forget", True)]
)
def test_in_any_part_of_a_step(monkeypatch, error, of, backward):
    """The third step begins again, though its first micro-batch was through."""
    method = build("grad_diff", {})
    expected = run(method, 4, 2)
    memory_for(monkeypatch, 2, of=of, error=error, step=3, nth=2, backward=backward)
    got = run(method, 4, 2)
    assert got.fit.halved == [(3, 2)]
    torch.testing.assert_close(moved(got), moved(expected), atol=1e-6, rtol=1e-5)
    assert got.state.log_history[-1]["train_loss"] == pytest.approx(
        expected.state.log_history[-1]["train_loss"], abs=1e-6
    )


def test_dropout_is_drawn_again(monkeypatch):
    method = build("npo", {})

    def dropping():
        return models.attach_lora(tiny.model(), r=4, alpha=8, dropout=0.5)

    small = run(method, 1, 4, dropping(), max_steps=1)
    memory_for(monkeypatch, 1)
    again = run(method, 4, 1, dropping(), max_steps=1)
    assert again.fit.halved == [(1, 2), (1, 1)]
    assert torch.equal(tiny.delta(again.model, dropping()), tiny.delta(small.model, dropping()))


@pytest.mark.parametrize("curvature", ["gauss_newton", pytest.param("hutchinson", marks=pytest.mark.slow)])
def test_sophias_curvature_too(monkeypatch, curvature):
    method = optimized(build("grad_diff", {}), "sophia", {"curvature": curvature, "every": 1, "rho": 30}, {})
    kw = {"learning_rate": 1e-4}
    small = run(method, 2, 2, **kw)
    memory_for(monkeypatch, 2, step=2)
    torch.testing.assert_close(moved(run(method, 4, 1, **kw)), moved(small), atol=1e-6, rtol=1e-3)


def test_one_row_that_does_not_fit_ends_the_run(monkeypatch):
    memory_for(monkeypatch, 0, step=2)
    with pytest.raises(
        RunFailed, match=r"out of memory at step 2 with one row in a micro-batch: .*gradient_checkpointing"
    ):
        run(build("grad_diff", {}))


def test_another_error_is_not_taken_for_it(monkeypatch):
    memory_for(monkeypatch, 2, error=RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(build("grad_diff", {}))


def test_a_checkpoint_remembers_the_rows(monkeypatch, tmp_path):
    method = build("grad_diff", {})
    kw = {"save_strategy": "steps", "save_steps": 2, "out": str(tmp_path), "max_steps": 4}
    passes = memory_for(monkeypatch, 2, step=2)
    whole = run(method, **kw)
    del passes[:]
    again = tiny.trainer(method, data=tiny.paired(9, 4), learning_rate=LR, **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(moved(again), moved(whole)) and max(rows for _, rows in passes) == 2
    assert again.fit.halved == whole.fit.halved == [(2, 2)] and again.warnings == whole.warnings != []
    fewer = micro.Fit(1)
    fewer.take(whole.fit.state())
    assert fewer.rows == 1  # the user gave less this time


def test_what_a_person_is_told():
    fit = micro.Fit(5)
    assert fit.warning(2) is None
    fit.halve(3)
    fit.halve(3)
    assert fit.warning(2) == (
        "out of memory at step 3: micro-batches had 5 rows and have 2 since then; a step has the same rows as before. "
        "per_device_train_batch_size=2 gradient_accumulation_steps=6 from the start saves the attempts"
    )
    assert fit.described() == [{"step": 3, "rows": 3}, {"step": 3, "rows": 2}]
