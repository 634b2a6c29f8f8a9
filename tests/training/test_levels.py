"""Methods with a level end where a model that never saw the rows would be."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerControl

from expunge import methods
from expunge.combine import WeightedSum
from expunge.errors import InputError
from expunge.losses import nll
from expunge.method import Method, Objective
from expunge.training import arguments, levels
from expunge.training.stops import stop_of


def trained(method, model, level, **kw):
    trainer = tiny.trainer(method, model, **({"optim": "adamw_torch", "learning_rate": 3e-3} | kw))
    if level is not None:
        streams = [s for o in method.objectives.values() if o.reference == "level" for s in o.on]
        with torch.no_grad():
            from expunge.training.cached import cache_logp

            held = cache_logp(level, streams, lambda s: trainer.batches(s))
        trainer.reference = type(trainer.reference)(level=held)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def ended():
    """A model taught the forget rows, and made to forget them by a method that ends where it was before."""
    before = tiny.model()
    teach = Method({"forget": Objective(nll, ("forget",))}, WeightedSum())
    target = trained(teach, tiny.model(), None, max_steps=80).model
    return before, trained(methods.level_wga(), target, before.eval(), max_steps=60, learning_rate=2e-3)


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
    assert trainer.state.global_step < 60 and found.verdict != "short"
    assert stop_of(trainer).reason == "level"
    rows = trainer.train_dataset.streams["forget"]
    d = plain_nll(trainer.model, rows) - plain_nll(before, rows)
    assert found.mean == pytest.approx(d.mean().item(), abs=1e-5)
    assert found.half == pytest.approx(1.645 * d.std().item() / math.sqrt(len(rows)), abs=1e-5)
    assert found.margin == pytest.approx(0.1 * trainer.level.distance)


def test_the_record_says_how_far_it_is(ended):
    said = ended[1].level.described()
    assert said["low"] < said["difference"] < said["high"] and said["rows"] == 8
    assert said["verdict"] in ("at", "beyond") and said["distance_before"] > 0


@pytest.mark.parametrize(
    ("mean", "half", "verdict"),
    [(-1.0, 0.1, "short"), (0.0, 0.1, "at"), (0.0, 0.3, "short"), (0.19, 0.1, "beyond"), (math.nan, 0.1, "short")],
)
def test_two_one_sided_tests(mean, half, verdict):
    found = levels.Look(mean, half, 0.2)
    assert found.verdict == verdict
    assert (found.warning is None) == (verdict == "at")


def test_a_look_by_hand():
    found = levels.look(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]), 0.5)
    assert (found.mean, found.half) == (0.0, pytest.approx(1.645))
    assert levels.look(torch.tensor([1.0]), torch.tensor([2.0]), 0.5).half == 0.0


def test_looks_are_after_epochs_and_end_training_when_not_short():
    values = iter([torch.tensor([0.0, 0.1]), torch.tensor([1.0, 1.1])])
    stop = levels.StopAtModelLevel(lambda: next(values), torch.tensor([1.0, 1.1]), 1.0)
    control = TrainerControl()
    stop.on_epoch_end(None, SimpleNamespace(), control)
    assert not control.should_training_stop
    stop.on_epoch_end(None, SimpleNamespace(), control)
    assert control.should_training_stop


def test_a_model_that_knows_no_more_than_the_level_is_refused():
    with pytest.raises(InputError, match="there is nothing to forget"):
        trained(methods.level_wga(), tiny.model(), tiny.model().eval(), max_steps=2)


def test_a_run_that_ends_before_its_level_is_warned_of():
    teach = Method({"forget": Objective(nll, ("forget",))}, WeightedSum())
    target = trained(teach, tiny.model(), None, max_steps=30).model
    trainer = trained(methods.level_wga(), target, tiny.model().eval(), max_steps=1)
    assert trainer.level.found.verdict == "short" and stop_of(trainer) is None
    assert any("is not down to the level" in warning for warning in trainer.warnings)


def test_a_method_that_ends_by_itself_may_take_longer_at_a_constant_rate():
    usual, own = (arguments.defaults(m, 80, lora=True) for m in (methods.wga(), methods.level_wga()))
    assert own["num_train_epochs"] == 4 * usual["num_train_epochs"]
    assert (usual["lr_scheduler_type"], own["lr_scheduler_type"]) == ("linear", "constant_with_warmup")
    assert own["learning_rate"] == 5e-4
