"""A run with a holdout set ends where the forget set is as strange as it, and nowhere else."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerControl

from expunge import methods  # noqa: F401  it fills the table
from expunge.errors import InputError
from expunge.forward import ForwardPass, see
from expunge.method import METHODS, build
from expunge.stopping import StopAtLevel, check, window


def learnt():
    """A model that knows the forget rows by heart and has never seen the holdout rows."""
    from expunge.combine import WeightedSum
    from expunge.losses import nll
    from expunge.method import Method, Objective

    teach = Method({"forget": Objective(nll, ("forget",))}, WeightedSum())
    t = tiny.trainer(teach, optim="adamw_torch", learning_rate=3e-3, max_steps=150)
    t.train()
    return t.model


@pytest.fixture(scope="module")
def target():
    return learnt()


HOLDOUT = tiny.examples(5000, 6)


def run(target, holdout, name="blur_margin", **kw):
    m = tiny.model()
    m.load_state_dict(target.state_dict())
    kw = {"optim": "adamw_torch", "learning_rate": 2e-3, "max_steps": 60} | kw
    t = tiny.trainer(build(name), m, **kw)
    t.holdout = holdout
    t.train()
    return t


@pytest.mark.parametrize("name", ["blur_margin", "gradient_ascent"])
def test_training_ends_at_the_level_of_unseen_text(target, name):
    t = run(target, HOLDOUT, name)
    losses = [h["loss/forget"] for h in t.state.log_history if "loss/forget" in h]
    two = [(a + b) / 2 for a, b in pairwise(losses)]  # eight rows in steps of four
    assert 2 < len(losses) < 60 and two[-1] <= t.holdout_level < min(two[:-1])
    assert len(run(target, None, name).state.log_history) > 60  # without a holdout set it goes on


def test_the_level_is_the_mean_margin_of_the_holdout_set_worked_out_row_by_row(target):
    t = run(target, HOLDOUT)
    margins = []
    for row in HOLDOUT:
        b = tiny.batch([row])
        z = target(input_ids=b["input_ids"]).logits[0, :-1][b["labels"][0, 1:] != -100]
        margins.append(((z.max(-1).values - z.mean(-1)) ** 2).mean())
    assert t.holdout_level == pytest.approx(torch.stack(margins).mean().item(), rel=1e-4)
    nlls = run(target, HOLDOUT, "gradient_ascent").holdout_level
    tokens = torch.cat([see(target, tiny.batch([row]), grad=False).token_logp for row in HOLDOUT])
    assert nlls == pytest.approx(tokens.mean().item(), rel=1e-4)


def test_a_resumed_run_stops_at_the_same_step(target, tmp_path):
    kw = {"out": str(tmp_path), "save_strategy": "steps", "save_steps": 2, "max_steps": 60}
    whole = run(target, HOLDOUT, **kw)
    stopped = whole.state.global_step
    m = tiny.model()
    m.load_state_dict(target.state_dict())
    again = tiny.trainer(build("blur_margin"), m, optim="adamw_torch", learning_rate=2e-3, **kw)
    again.holdout, again.holdout_level = HOLDOUT, None
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.state.global_step == stopped > 2


def test_a_holdout_set_as_well_known_as_the_forget_set_is_told(target):
    with pytest.raises(InputError, match="there is nothing to forget"):
        run(target, tiny.examples(0, 8))


def test_one_low_batch_is_not_enough():
    stop, control = StopAtLevel(1.0, window=2), TrainerControl()
    for losses, ends in (([0.5], False), ([0.5, 2.0], False), ([2.0, 0.5], False), ([9.0, 1.5, 0.5], True)):
        stop.on_log(None, SimpleNamespace(log_history=[{"loss/forget": v} for v in losses] + [{"eval": 0}]), control)
        assert control.should_training_stop == ends


def test_a_window_is_one_pass_of_the_forget_set():
    assert [window(40, 4, 1), window(41, 4, 1), window(40, 4, 5), window(3, 8, 1)] == [10, 11, 2, 1]


def test_methods_whose_forget_loss_is_relative_are_refused():
    allowed = set()
    for name in METHODS:
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
