"""When a checkpoint is saved, what it holds besides transformers' own, and what becomes of a failure."""

from __future__ import annotations

import os
import signal

import pytest
import tiny
import torch
from resumed import default_handlers
from transformers import TrainerCallback

from expunge.method import build
from expunge.methods import pdu
from expunge.training import checkpoints, finite, keeper, manifest, signals


@pytest.fixture(autouse=True)
def _handlers():
    with default_handlers():
        yield


def trainer(folder, seconds=0.0, method=None, m=None, callbacks=(), **kw):
    t = tiny.trainer(method or build("grad_diff"), m, out=str(folder / "checkpoints"), **kw)
    t.keeper.plan = keeper.Plan(folder / "unfinished", seconds, lambda: {"who": "me"})
    for one in callbacks:
        t.add_callback(one)
    return t


class At(TrainerCallback):
    """Calls ``what`` in the step that begins after ``step`` others."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.what()


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_the_newest_checkpoint_is_kept_and_a_short_run_writes_none(tmp_path):
    trainer(tmp_path).train()
    assert names(tmp_path / "unfinished") == ["checkpoint-3"] and manifest.is_whole(
        tmp_path / "unfinished/checkpoint-3"
    )
    assert checkpoints.state_of(tmp_path / "unfinished/checkpoint-3")["run"] == {"who": "me"}
    assert not (
        tmp_path / "unfinished/checkpoint-3/model.safetensors"
    ).exists()  # what trains is in trained.safetensors
    for never in (3600.0, None):
        trainer(tmp_path / "short", never).train()
    assert names(tmp_path / "short" / "unfinished") == []


def test_a_checkpoint_that_was_asked_for_goes_where_it_was_asked_for(tmp_path):
    kw = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1, "max_steps": 5}
    trainer(tmp_path, **kw).train()
    assert names(tmp_path / "checkpoints") == ["checkpoint-5"]  # transformers saves the last step, too
    assert names(tmp_path / "unfinished") == ["checkpoint-3"]  # none where the other was just written


def test_a_signal_ends_training_after_its_step_which_is_saved(tmp_path):
    stop = At(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    t = trainer(tmp_path, None, callbacks=[stop])
    with signals.caught(), pytest.raises(signals.Interrupted, match="stopped after step 2 of 3, which is saved") as e:
        t.train()
    assert (e.value.step, e.value.code) == (2, 143) and names(tmp_path / "unfinished") == ["checkpoint-2"]


def test_a_checkpoint_of_the_end_leaves_nothing_to_do(tmp_path):
    whole = trainer(tmp_path, max_steps=3)  # in the middle of an epoch of two steps
    whole.train()
    again = trainer(tmp_path, max_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "unfinished" / "checkpoint-3"))
    assert again.state.global_step == 3 and again.state.log_history[:3] == whole.state.log_history[:3]
    assert not tiny.delta(again.model, whole.model).any()


def test_a_log_of_every_third_step_is_whole(tmp_path):
    """The mean loss of a line is over its three steps, wherever training was interrupted; so are warnings and λ."""
    kw = {"logging_steps": 3, "max_steps": 6, "method": pdu(budget=0.01, warmup=0.0)}
    whole = trainer(tmp_path, None, **kw)
    whole.train()
    cut = trainer(tmp_path, None, **kw, callbacks=[At(3, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    with signals.caught(), pytest.raises(signals.Interrupted):
        cut.train()
    again = trainer(tmp_path, None, **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "unfinished" / "checkpoint-4"))
    rows = [[row | {"seconds": 0} for row in t.state.log_history if "loss" in row] for t in (again, whole)]
    assert rows[0] == rows[1] and len(rows[0]) == 2
    assert again.warnings == whole.warnings and again.warnings


def test_the_last_good_weights_are_those_of_an_uninterrupted_run(tmp_path):
    def broken(t):
        with torch.no_grad():
            next(t.model.parameters()).fill_(float("nan"))

    whole = trainer(tmp_path / "whole", None)
    whole.add_callback(At(2, lambda: broken(whole)))
    whole.train()
    cut = trainer(tmp_path, None, callbacks=[At(1, lambda: os.kill(os.getpid(), signal.SIGINT))])
    with signals.caught(), pytest.raises(signals.Interrupted):
        cut.train()
    again = trainer(tmp_path, None)
    again.add_callback(At(2, lambda: broken(again)))
    again.train(resume_from_checkpoint=str(tmp_path / "unfinished" / "checkpoint-2"))
    assert again.health.diverged == whole.health.diverged == finite.Divergence(3, "the loss forget", good=1)
    assert not tiny.delta(again.model, whole.model).any()


@pytest.mark.parametrize("asked", [{}, {"save_strategy": "steps", "save_steps": 1}], ids=["own", "asked for"])
def test_a_checkpoint_that_cannot_be_written_is_told_and_training_goes_on(tmp_path, monkeypatch, capsys, asked):
    seal = manifest.seal
    full = iter([False, True, False])

    def sealed(place):
        if next(full):
            raise OSError(28, "No space left on device")
        return seal(place)

    monkeypatch.setattr(manifest, "seal", sealed)
    t = trainer(tmp_path, **asked)
    t.train()
    place = tmp_path / ("checkpoints" if asked else "unfinished")
    assert t.state.global_step == 3 and names(place) == (
        ["checkpoint-1", "checkpoint-3"] if asked else ["checkpoint-3"]
    )
    said = f"the checkpoint {place / 'checkpoint-2'} could not be written (no space left on device)"
    assert f"expunge: {said}; training goes on" in capsys.readouterr().err
    assert t.keeper.saved.problem == f"{said}; the weights that came out are whole"


def test_a_step_that_cannot_be_saved_says_what_is(tmp_path, monkeypatch):
    t = trainer(tmp_path, None, callbacks=[At(1, lambda: os.kill(os.getpid(), signal.SIGINT))])
    monkeypatch.setattr(type(t.combine), "state_dict", lambda self: 1 / 0)
    with signals.caught(), pytest.raises(signals.Interrupted, match=r"which is not: .* \(division by zero\)") as e:
        t.train()
    assert e.value.step is None and names(tmp_path / "unfinished") == []
