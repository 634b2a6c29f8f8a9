"""A run that breaks down where its steps are read one step later, as on an accelerator."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from expunge import methods
from expunge.training import finite
from expunge.training.trainer import UnlearningTrainer

KW = {"optim": "adamw_torch", "learning_rate": 1e-2, "weight_decay": 0.1}


@pytest.fixture
def late(monkeypatch):
    monkeypatch.setattr(finite, "read_late", lambda _: True)


def after(steps, monkeypatch, **kw):
    """The weights after ``steps`` of a run that nothing broke."""
    own = UnlearningTrainer._maybe_log_save_evaluate

    def stopping(self, *args, **kwargs):
        self.control.should_training_stop |= self.state.global_step == steps
        return own(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(UnlearningTrainer, "_maybe_log_save_evaluate", stopping)
        t = tiny.trainer(methods.grad_diff(), **(KW | kw))
        if steps:
            t.train()
    return t.model


@pytest.mark.parametrize("logging_steps", [1, 100], ids=["read at the log", "read a step later"])
@pytest.mark.parametrize(
    ("at", "good"), [(1, None), (2, None), (4, 2), (6, 4)], ids=["first", "second", "in between", "last"]
)
def test_the_weights_go_back_to_those_that_were_seen_to_work(late, monkeypatch, at, good, logging_steps):
    kw = {"max_steps": 6, "logging_steps": logging_steps}
    expected = after(good or 0, monkeypatch, **kw)
    tiny.break_loss(monkeypatch, at)
    t = tiny.trainer(methods.grad_diff(), **(KW | kw))
    t.train()
    assert (t.health.diverged.step, t.health.diverged.what, t.health.diverged.good) == (at, "the loss forget", good)
    assert torch.equal(tiny.delta(t.model, expected), torch.zeros_like(tiny.delta(t.model, expected)))
    assert t.state.global_step <= at + 1  # one step more, at most
    if logging_steps == 1:
        logged = [h["loss/forget"] for h in t.state.log_history if "loss/forget" in h]
        assert len(logged) == at and math.isinf(logged[-1])


def test_weights_that_gave_nothing_finite_are_in_no_checkpoint(late, monkeypatch, tmp_path):
    tiny.break_loss(monkeypatch, 2)
    kw = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "logging_steps": 100}
    t = tiny.trainer(methods.grad_diff(), out=str(tmp_path), **(KW | kw))
    t.train()
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_large_copy_has_the_memory_of_one(late, monkeypatch):
    """Above ``BYTES_A_STEP`` the step is read before its weights are copied, over the copy before."""
    monkeypatch.setattr(finite, "BYTES_A_STEP", 1)
    monkeypatch.setattr(finite, "TIMES", 3)
    expected = after(3, monkeypatch, max_steps=9, logging_steps=100)  # a copy every third step
    places = set()
    own = finite.copy_of

    def copy_of(model, step, into=None):
        made = own(model, step, into)
        places.add(next(iter(made.weights.values())).data_ptr())
        return made

    monkeypatch.setattr(finite, "copy_of", copy_of)
    tiny.break_loss(monkeypatch, 6)
    t = tiny.trainer(methods.grad_diff(), **(KW | {"max_steps": 9, "logging_steps": 100}))
    t.train()
    assert t.health.diverged.good == 3 and len(places) == 1
    assert torch.equal(tiny.delta(t.model, expected), torch.zeros_like(tiny.delta(t.model, expected)))


def test_a_healthy_run_is_the_same(monkeypatch):
    one = after(4, monkeypatch, max_steps=4)
    monkeypatch.setattr(finite, "read_late", lambda _: True)
    two = after(4, monkeypatch, max_steps=4)
    assert torch.equal(tiny.delta(one, two), torch.zeros_like(tiny.delta(one, two)))
