"""A run that loses too much of what it is to keep ends, and goes back to the last state that kept enough."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerCallback

from expunge.errors import InputError, RunFailed
from expunge.method import build
from expunge.training.stops import stop_of
from expunge.training.utility import Keep, UtilityGuard, check, split

ROWS = tiny.examples(7000, 6)
KW = {"optim": "adamw_torch", "learning_rate": 2e-3, "max_steps": 12}


def probability(model, rows=ROWS):
    """By hand, row by row."""
    found = []
    for row in rows:
        with torch.no_grad():
            lp = model.eval()(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        own = [lp[t - 1, y].item() for t, y in enumerate(row.labels) if t and y != -100]
        found.append(math.exp(sum(own) / len(own)))
    return sum(found) / len(found)


class AfterEachStep(TrainerCallback):
    def __init__(self):
        self.values, self.weights = {}, {}

    def on_step_end(self, args, state, control, model=None, **_):
        self.values[state.global_step] = probability(model)
        self.weights[state.global_step] = {n: p.detach().clone() for n, p in model.named_parameters()}


def run(keep, method="gradient_ascent", m=None, callbacks=(), begin=None, **kw):
    t = tiny.trainer(build(method), m or tiny.model(), **(KW | kw))
    t.keep = keep
    for callback in callbacks:
        t.add_callback(callback)
    t.train(resume_from_checkpoint=begin)
    return t


def same(t, weights):
    return all(torch.equal(p, weights[n]) for n, p in t.model.named_parameters())


@pytest.fixture(scope="module")
def path():
    """The probability after each step of a run that nothing ends, and the weights."""
    steps = AfterEachStep()
    run(None, callbacks=[steps])
    start = probability(tiny.model())
    return {step: value / start for step, value in steps.values.items()}, steps.weights


def test_the_run_goes_back_to_the_last_state_that_kept_enough(path):
    shares, weights = path
    assert shares[12] < shares[6] < 1  # ascent destroys
    limit = (shares[6] + shares[9]) / 2
    t = run(Keep(limit, ROWS, every=3))
    good = max(step for step in (3, 6, 9) if all(shares[s] >= limit for s in range(3, step + 1, 3)))
    assert good in (6, 3) and same(t, weights[good]) and t.state.global_step == good + 3
    stop = stop_of(t)
    assert (stop.reason, stop.step) == ("utility", good)
    assert stop.figures["kept"] == pytest.approx(shares[good + 3], rel=1e-5)
    assert stop.figures["kept_by_these"] == pytest.approx(shares[good], rel=1e-5)
    assert [p["kept"] for p in t.guard.described()["probes"]] == [
        pytest.approx(shares[s], rel=1e-5) for s in range(3, good + 4, 3)
    ]
    assert t.warnings == [stop.sentence] and f"those after step {good}, which keep" in stop.sentence


def test_a_run_that_keeps_enough_is_the_same_run(path):
    shares, weights = path
    t = run(Keep(min(shares.values()) * 0.99, ROWS, every=5))
    assert same(t, weights[12]) and stop_of(t) is None and t.warnings == []
    assert list(t.guard.probes) == [5, 10, 12]  # what comes out, too


@pytest.mark.parametrize(("steps", "every"), [(320, 20), (40, 2), (3, 1)])
def test_sixteen_probes_a_run_unless_it_is_said(steps, every):
    guard = UtilityGuard(Keep(0.9, ROWS), None, lambda: 0.5)
    guard.on_train_begin(None, SimpleNamespace(max_steps=steps), None)
    assert guard.every == every


def test_nothing_is_saved_where_the_first_probe_is_below(path):
    with pytest.raises(
        RunFailed, match=r"fell below keep = 1 at step 4: .* no probe before it was above, .*--keep-every 1"
    ):
        run(Keep(1.0, ROWS, every=4))


@pytest.mark.parametrize("adapter", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(path, tmp_path, adapter):
    from expunge import models

    def net():
        return models.attach_lora(tiny.model(), r=4, alpha=8) if adapter else tiny.model()

    shares, _ = path
    kw = {"out": str(tmp_path), "save_strategy": "steps", "save_steps": 2, "learning_rate": 5e-2 if adapter else 2e-3}
    keep = Keep(0.95 if adapter else (shares[6] + shares[9]) / 2, ROWS, every=2)
    whole = run(keep, m=net(), **kw)
    stop = stop_of(whole)
    assert stop.reason == "utility" and stop.step > 0
    for step in (2, stop.step + 2):  # before the good state, and where the run has ended
        again = run(keep, m=net(), begin=str(tmp_path / f"checkpoint-{step}"), **kw)
        assert stop_of(again) == stop and again.guard.described() == whole.guard.described()
        assert not tiny.delta(again.model, whole.model).any()


def test_a_run_that_breaks_down_goes_back_to_what_keeps_enough(path, monkeypatch):
    shares, weights = path
    tiny.break_loss(monkeypatch, 9)
    limit = (shares[6] + shares[7]) / 2
    t = run(Keep(limit, ROWS, every=6))
    assert stop_of(t).reason == "not_finite" and stop_of(t).step == 6 and same(t, weights[6])


def test_the_holdout_set_ends_a_run_and_what_comes_out_is_looked_at(path):
    shares, weights = path

    class Ends(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop |= state.global_step == 11

    kept = run(Keep(shares[11] * 0.99, ROWS, every=6), callbacks=[Ends()])
    assert stop_of(kept).reason == "callback" and list(kept.guard.probes) == [6, 11] and same(kept, weights[11])
    lost = run(Keep((shares[6] + shares[11]) / 2, ROWS, every=6), callbacks=[Ends()])
    assert stop_of(lost).reason == "utility" and same(lost, weights[6])


def test_rows_are_taken_away_by_the_seed():
    trained, taken = split(50, 3)
    assert sorted([*trained, *taken]) == list(range(50)) and len(taken) == 10 and split(50, 3) == (trained, taken)
    assert split(50, 4) != (trained, taken)


@pytest.mark.parametrize(
    ("method", "retain", "own", "said"),
    [
        ("grad_diff", None, None, "keep needs rows that the model must not lose; give a retain set"),
        ("grad_diff", 19, None, "19 rows are too few: give 20 or more"),
        ("gradient_ascent", 3, None, "3 retain rows say little of what is kept; give 4 or more"),
        ("grad_diff", 100, 3, "keep_rows: 3 rows say little"),
        ("task_vector", 100, None, "turns the model round after its last step"),
    ],
)
def test_what_cannot_be_kept_is_refused(method, retain, own, said):
    with pytest.raises(InputError, match=said):
        check(build(method), retain, own)


def test_rows_that_the_model_does_not_know_at_all():
    with pytest.raises(InputError, match="is 0 before training, so nothing can be lost"):
        UtilityGuard(Keep(0.9, ROWS), None, lambda: 0.0)
