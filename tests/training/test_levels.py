"""Methods with a level end where a model that never saw the rows would be."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerCallback, TrainerControl

from expunge import methods
from expunge.combine import WeightedSum
from expunge.errors import InputError
from expunge.losses import nll
from expunge.method import Method, Objective
from expunge.sophia import Settings
from expunge.training import arguments, levels, rate
from expunge.training.stops import stop_of


def trained(method, model, level, **kw):
    trainer = tiny.trainer(method, model, **({"optim": "adamw_torch", "learning_rate": 3e-3} | kw))
    if level is not None:
        streams = [s for o in method.objectives.values() if o.reference == "level" for s in o.on]
        with torch.no_grad():
            from expunge.training.cached import cache_level

            held = cache_level(level, streams, lambda s: trainer.batches(s))
        trainer.reference = type(trainer.reference)(level=held)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def ended():
    """A model taught the forget rows, and made to forget them by a method that ends where it was before."""
    before = tiny.model()
    teach = Method({"forget": Objective(nll, ("forget",))}, WeightedSum())
    target = trained(teach, tiny.model(), None, max_steps=80).model
    return before, trained(methods.level(), target, before.eval(), max_steps=60, learning_rate=2e-3)


def plain_nll(model, rows):
    """Mean negative log-likelihood of each row's answer, one row at a time."""
    found = []
    for r in rows:
        ids, labels = torch.tensor([r.input_ids]), torch.tensor(r.labels)
        with torch.no_grad():
            logp = model.eval()(input_ids=ids).logits[0].double().log_softmax(-1)
        at = [t for t in range(len(labels) - 1) if labels[t + 1] != -100]
        found.append(-torch.stack([logp[t, labels[t + 1]] for t in at]).mean())
    return torch.stack(found)


def test_training_ends_at_the_level_before_its_last_step(ended):
    before, trainer = ended
    found = trainer.level.found
    assert trainer.state.global_step < 60 and found.verdict in ("at", "near")
    assert stop_of(trainer).reason == "level"
    rows = trainer.train_dataset.streams["forget"]
    d = plain_nll(trainer.model, rows) - plain_nll(before, rows)
    assert found.mean == pytest.approx(d.mean().item(), abs=1e-5)
    assert found.half == pytest.approx(1.645 * d.std().item() / math.sqrt(len(rows)), abs=1e-5)
    assert found.margin == pytest.approx(0.1 * trainer.level.distance)


def test_the_record_says_how_far_it_is(ended):
    said = ended[1].level.described()
    assert said["low"] < said["difference"] < said["high"] and said["rows"] == 8
    assert said["verdict"] in ("at", "near") and said["distance_before"] > 0


@pytest.mark.parametrize(
    ("mean", "half", "verdict", "enough"),
    [
        (-1.0, 0.1, "short", False),
        (-0.15, 0.1, "near", False),
        (-0.05, 0.1, "at", True),
        (0.0, 0.1, "at", True),
        (0.0, 0.3, "near", True),
        (0.25, 0.1, "beyond", True),
        (math.nan, 0.1, "short", False),
    ],
)
def test_two_one_sided_tests(mean, half, verdict, enough):
    found = levels.Difference(mean, half, 0.2)
    assert (found.verdict, found.enough) == (verdict, enough)
    assert (found.warning is None) == (verdict == "at")


def test_a_difference_by_hand():
    found = levels.difference(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]), 0.5)
    assert (found.mean, found.half) == (0.0, pytest.approx(1.645))
    assert levels.difference(torch.tensor([1.0]), torch.tensor([2.0]), 0.5).half == 0.0


def of_a_line(every=1, kept=None):
    """A model of one weight, and the callback for two rows that are as unlikely as the weight is large."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    nll = lambda: model.weight.detach().double().flatten() + torch.tensor([0.0, 0.1])  # noqa: E731
    return model, levels.StopAtModelLevel(model, nll, torch.tensor([1.0, 1.1]), 1.0, kept, every)


def run_to_the_end(model, stop, speed, steps):
    control = TrainerControl()
    stop.on_train_begin(None, SimpleNamespace(global_step=0), control)
    for step in range(1, steps + 1):
        torch.nn.init.constant_(model.weight, speed * step)
        stop.on_step_end(None, SimpleNamespace(global_step=step), control)
        if control.should_training_stop:
            return step
    return None


def test_tests_are_every_so_many_steps_and_training_ends_at_the_first_that_is_enough():
    model, stop = of_a_line(every=2)
    assert run_to_the_end(model, stop, 0.25, 10) == 4
    assert stop.found.mean == pytest.approx(0, abs=1e-6) and stop.share == 1
    model, stop = of_a_line(every=3)
    assert run_to_the_end(model, stop, 0.25, 5) is None and stop.before.step == 3


def test_a_step_that_goes_too_far_is_moved_back_to_where_the_mean_is_0():
    model, stop = of_a_line()
    assert run_to_the_end(model, stop, 0.8, 3) == 2
    assert stop.share == pytest.approx(0.25) and float(model.weight.detach()) == pytest.approx(1.0)
    assert stop.found.verdict == "at" and stop.conclude(2) is stop.found


def test_training_goes_on_while_too_little_is_kept_from_where_it_was():
    probabilities = iter([0.8, 0.5, 0.7, 0.77])
    kept = levels.RetainProbability([], lambda _: next(probabilities))
    model, stop = of_a_line(kept=kept)
    control, seen = TrainerControl(), []
    stop.on_train_begin(None, SimpleNamespace(global_step=0), control)
    for step, weight in enumerate([0.5, 1.4, 1.01, 0.99], 1):
        torch.nn.init.constant_(model.weight, weight)
        stop.on_step_end(None, SimpleNamespace(global_step=step), control)
        seen.append((round(float(model.weight.detach()), 3), stop.kept_share, control.should_training_stop))
    shares = [None, 0.5 / 0.8, 0.7 / 0.8, 0.77 / 0.8]
    assert seen == [(w, s, s == shares[3]) for w, s in zip([0.5, 1.4, 1.01, 0.99], shares, strict=True)]


def test_a_set_that_is_beyond_and_was_so_before_does_not_end_training():
    model, stop = of_a_line()
    control = TrainerControl()
    stop.before, stop.before_mean = levels.finite.copy_of(model, 0), 0.5
    torch.nn.init.constant_(model.weight, 1.4)
    stop.on_step_end(None, SimpleNamespace(global_step=1), control)
    assert not control.should_training_stop and stop.found.verdict == "beyond"
    assert stop.conclude(1).verdict == "beyond"


def test_the_first_step_may_go_too_far():
    model, stop = of_a_line()
    assert run_to_the_end(model, stop, 4.0, 3) == 1
    assert float(model.weight.detach()) == pytest.approx(1.0) and stop.before.step == 0


@pytest.mark.parametrize(
    "curve",
    [
        lambda x: x**3 - 0.2,
        lambda x: math.tanh(4 * x) - 0.5,
        lambda x: x - 0.9,
        lambda x: math.expm1(6 * x) / math.expm1(6) - 0.05,  # of which plain false position creeps up on one side
    ],
)
def test_the_crossing_is_found_in_a_few_tries(curve):
    share, value = levels.crossing(curve(0.0), curve(1.0), curve, 0.02)
    assert value == curve(share) and abs(value) <= 0.02


def test_a_crossing_that_is_no_number_is_not_gone_to():
    assert levels.crossing(-1.0, 1.0, lambda x: math.nan, 0.1) == (1.0, 1.0)


def test_what_a_checkpoint_holds_brings_back_the_weights_to_go_back_towards():
    model, stop = of_a_line()
    run_to_the_end(model, stop, 0.3, 3)
    other = of_a_line()[1]
    other.take(stop.state(), stop.weights())
    other.on_train_begin(None, SimpleNamespace(global_step=3), None)
    assert (other.before.step, other.before_mean) == (3, pytest.approx(-0.1))


def test_a_model_that_knows_no_more_than_the_level_is_refused():
    with pytest.raises(InputError, match="there is nothing to forget"):
        trained(methods.level(), tiny.model(), tiny.model().eval(), max_steps=2)


def test_a_run_that_ends_before_its_level_is_warned_of():
    teach = Method({"forget": Objective(nll, ("forget",))}, WeightedSum())
    target = trained(teach, tiny.model(), None, max_steps=30).model
    trainer = trained(methods.level(), target, tiny.model().eval(), max_steps=1)
    assert trainer.level.found.verdict == "short" and stop_of(trainer) is None
    assert any("is not down to the level" in warning for warning in trainer.warnings)


def test_a_method_that_ends_by_itself_may_take_longer_at_a_constant_rate():
    usual, own = (arguments.defaults(m, 80, lora=True) for m in (methods.wga(), methods.level()))
    assert own["num_train_epochs"] == 4 * usual["num_train_epochs"]
    assert (usual["lr_scheduler_type"], own["lr_scheduler_type"]) == ("linear", "constant_with_warmup")
    assert own["learning_rate"] == 5e-4


def test_a_rate_by_hand():
    """A sign step of the rate, over all rows, N times, in a plain loop of its own."""
    target, before = tiny.model(), tiny.never_taught().eval()
    trainer = tiny.trainer(methods.level(), target)
    found = rate.suited(trainer)
    rows = trainer.train_dataset.streams["forget"]
    own, there = logits(target.eval(), rows), logits(before, rows)
    above = own > there
    gradient = torch.autograd.grad(own[above].mean(), list(target.parameters()), allow_unused=True)
    slope = sum(float(g.abs().sum()) for g in gradient if g is not None)
    assert found == pytest.approx(float((own - there)[above].mean()) / slope / rate.STEPS, rel=1e-4)
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize(
    ("method", "args", "given", "found"),
    [
        (methods.level(), {}, (), True),
        (methods.level(), {}, ("learning_rate",), False),
        (methods.level(), {"optim": "sgd"}, (), False),
        (replace(methods.level(), optimizer=Settings()), {}, (), False),  # Sophia's steps are of another size
        (methods.npo(), {}, (), False),
    ],
)
def test_a_rate_is_found_for_adam_where_nobody_gave_one(method, args, given, found):
    assert rate.is_found(method, tiny.arguments(**({"optim": "adamw_torch"} | args)), given) is found


def logits(model, rows):
    """log p - log(1 - p) of each row's labelled tokens."""
    out = []
    for r in rows:
        chance = model(input_ids=torch.tensor([r.input_ids])).logits[0].softmax(-1)
        p = torch.stack([chance[t - 1, y] for t, y in enumerate(r.labels) if y != -100])
        out.append((p / (1.0001 - p)).log())
    return torch.cat(out)


class Spy(TrainerCallback):
    """What the callback of ``trainer`` would go back towards when the fourth step begins."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3:
            before = self.trainer.level.before
            self.seen = before.step, {name: w.clone() for name, w in before.weights.items()}


def test_a_run_that_goes_on_has_the_weights_of_the_last_test(tmp_path, monkeypatch):
    monkeypatch.setattr(levels, "period", lambda *_: 2)
    seen = []
    for name, begin in (("whole", None), ("again", str(tmp_path / "whole/checkpoint-3"))):
        trainer = tiny.trainer(
            methods.level(),
            out=str(tmp_path / name),
            save_strategy="steps",
            save_steps=3,
            max_steps=4,
            learning_rate=1e-4,
        )
        trainer.add_callback(spy := Spy(trainer))
        trainer.train(resume_from_checkpoint=begin)
        seen.append(spy.seen)
    (step, weights), (step_again, weights_again) = seen
    assert step == step_again == 2 and weights.keys() == weights_again.keys() != set()
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
