"""A run with a holdout set ends where the forget set is as strange as it, and nowhere else."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerCallback, TrainerControl

from expunge.errors import InputError
from expunge.forward.view import ForwardPass, see
from expunge.method import build, entries
from expunge.training.stopping import StopAtLevel, check, rows_to_check


def learnt():
    """A model that knows the forget rows by heart and has never seen the holdout rows."""
    model, rows = tiny.model(), tiny.batch(tiny.examples(0, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], labels=rows["labels"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def target():
    return learnt()


HOLDOUT = tiny.examples(5000, 6)


def run(target, holdout, name="blur_margin", callbacks=(), **kw):
    m = tiny.model()
    m.load_state_dict(target.state_dict())
    kw = {"optim": "adamw_torch", "learning_rate": 2e-3, "max_steps": 60} | kw
    t = tiny.trainer(build(name), m, **kw)
    t.holdout = holdout
    for callback in callbacks:
        t.add_callback(callback)
    t.train()
    return t


class AfterEachStep(TrainerCallback):
    """``figure(model)`` after every step."""

    def __init__(self, figure):
        self.figure, self.values = figure, []

    def on_step_end(self, args, state, control, model=None, **_):
        self.values.append(self.figure(model.eval()))
        model.train()


@pytest.mark.parametrize("name", ["blur_margin", "gradient_ascent"])
def test_training_ends_at_the_first_step_that_finds_the_forget_set_as_strange_as_unseen_text(target, name):
    """Of a step the log knows its batch before it, and a run without a holdout set the whole set after it."""
    t = run(target, HOLDOUT, name)
    ended, level = t.state.global_step, t.stop.level
    batches = [h["loss/forget"] for h in t.state.log_history if "loss/forget" in h]
    rows = tiny.batch(t.train_dataset.streams["forget"])
    whole = AfterEachStep(lambda m: margin(m, rows) if name == "blur_margin" else -nll(m, rows))
    run(target, None, name, callbacks=[whole], max_steps=ended)
    down = [max(own, after) <= level for own, after in zip(batches, whole.values, strict=True)]
    assert len(down) == ended > 2 and down == [False] * (ended - 1) + [True]


def nll(m, b):
    return -see(m, b, grad=False).token_logp.mean().item()


def margin(m, b):
    """The mean over rows of each row's mean squared margin."""
    z = m(**{k: b[k] for k in ("input_ids", "attention_mask")}).logits[:, :-1]
    own, real = (z.max(-1).values - z.mean(-1)) ** 2, b["labels"][:, 1:] != -100
    return ((own * real).sum(1) / real.sum(1)).mean().item()


def test_the_level_is_the_mean_margin_of_the_holdout_set_worked_out_row_by_row(target):
    t = run(target, HOLDOUT)
    margins = []
    for row in HOLDOUT:
        b = tiny.batch([row])
        z = target(input_ids=b["input_ids"]).logits[0, :-1][b["labels"][0, 1:] != -100]
        margins.append(((z.max(-1).values - z.mean(-1)) ** 2).mean())
    assert t.stop.level == pytest.approx(torch.stack(margins).mean().item(), rel=1e-4)
    nlls = run(target, HOLDOUT, "gradient_ascent").stop.level
    tokens = torch.cat([see(target, tiny.batch([row]), grad=False).token_logp for row in HOLDOUT])
    assert nlls == pytest.approx(tokens.mean().item(), rel=1e-4)


def test_a_resumed_run_stops_at_the_same_step(target, tmp_path):
    kw = {"out": str(tmp_path), "save_strategy": "steps", "save_steps": 2, "max_steps": 60}
    whole = run(target, HOLDOUT, **kw)
    stopped = whole.state.global_step
    m = tiny.model()
    m.load_state_dict(target.state_dict())
    again = tiny.trainer(build("blur_margin"), m, optim="adamw_torch", learning_rate=2e-3, **kw)
    again.holdout = HOLDOUT
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.state.global_step == stopped > 2


def test_a_holdout_set_as_well_known_as_the_forget_set_is_told(target):
    with pytest.raises(InputError, match="there is nothing to forget"):
        run(target, tiny.examples(0, 8))


def test_a_low_batch_calls_for_a_look_and_only_the_look_ends_the_run():
    looks = iter([1.2, 1.0])
    stop, control = StopAtLevel(1.0, lambda: next(looks)), TrainerControl()
    ended = []
    for line in ({"loss/forget": 1.5}, {"loss/forget": 0.5}, {"eval": 0}, {"loss/forget": 1.1}, {"loss/forget": 1.0}):
        stop.on_log(None, SimpleNamespace(log_history=[{"loss/forget": 0.1}, line]), control)
        ended.append((control.should_training_stop, stop.found))
    assert ended == [(False, None), (False, 1.2), (False, 1.2), (False, 1.2), (True, 1.0)]


def test_a_look_takes_all_rows_of_a_small_set_and_as_many_as_sixteen_steps_of_a_large_one():
    assert rows_to_check(40, 4) == list(range(40))
    assert rows_to_check(100, 1) == [
        5,
        10,
        14,
        19,
        28,
        33,
        41,
        45,
        52,
        59,
        67,
        71,
        76,
        85,
        90,
        94,
    ]  # one of each sixteenth
    assert len(rows_to_check(64, 4)) == len(rows_to_check(65, 4)) == 64
    assert rows_to_check(6400, 4)[:3] == [84, 175, 242]


def test_methods_whose_forget_loss_is_relative_are_refused():
    allowed = set()
    for name in entries():
        try:
            check(build(name))
            allowed.add(name)
        except InputError:
            pass
    assert {"blur_margin", "pdu", "gradient_ascent", "grad_diff", "simnpo"} <= allowed
    assert not allowed & {"npo", "dpo", "idk_dpo", "rmu", "blur_rmu", "undial", "task_vector", "jensun"}


@pytest.mark.parametrize("name", ["gradient_ascent", "simnpo", "ce_u", "blur_margin", "wga", "satimp"])
def test_a_forget_loss_that_stops_a_run_falls_all_the_way(name):
    """From knowing a token by heart to not knowing it at all; a loss that turns round on the way says nothing."""
    method = build(name, {"ignore_first": 0} if name == "ce_u" else {})
    z = torch.zeros(1, 2, tiny.V)
    falls = []
    for logit in range(12, -1, -1):  # p from 0.9998 to 1 / 32
        z[0, 0, 5] = logit
        falls.append(method.objectives["forget"].loss(ForwardPass.from_logits(z.clone(), torch.tensor([[-100, 5]]))))
    if all(a >= b for a, b in pairwise(falls)):
        check(method)
    else:
        with pytest.raises(InputError, match="near 0 for text that is known by heart and for text that is not known"):
            check(method)
