"""A run that breaks down: it stops there, keeps its last good weights, says so, or leaves everything as it was."""

from __future__ import annotations

import json
import math

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from expunge import unlearn
from expunge.cli import app
from expunge.errors import InputError, RunFailed
from expunge.training.trainer import UnlearningTrainer
from expunge.unlearning import run as unlearning_run

FAST = {"max_steps": 6, "use_cpu": True, "disable_tqdm": True, "method": "grad_diff"}


def go(**kw):
    return unlearn("model", forget="forget.jsonl", retain="retain.jsonl", **(FAST | kw))


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize(("method", "adapter"), [("grad_diff", "lora"), ("blur_npo", None)])
def test_the_last_good_weights_are_saved_as_an_ordinary_output(workplace, monkeypatch, method, adapter):
    with monkeypatch.context() as patch:
        tiny.break_loss(patch, at=4)
        with pytest.raises(
            RunFailed, match="broke down at step 4: the loss forget is not finite; the weights after step 2"
        ):
            go(method=method, adapter=adapter, merge=bool(adapter))
    said = json.loads((workplace / "unlearned" / "run.json").read_text())
    assert said["failed"].startswith("training broke down at step 4") and said["training"]["stopped_after"] == 2
    assert said["after"]["forget"]["nll"] > 0 and "Traceback" not in (workplace / "unlearned/report.html").read_text()
    # the same steps of a run of the same length that nothing broke, stopped by hand after two
    monkeypatch.setattr(UnlearningTrainer, "_maybe_log_save_evaluate", stop_after_two(UnlearningTrainer))
    go(method=method, adapter=adapter, merge=bool(adapter), out="whole")
    one, two = weights(workplace / "unlearned" / "model"), weights(workplace / "whole" / "model")
    assert all(torch.equal(one[k], two[k]) for k in two)


def stop_after_two(kind):
    own = kind._maybe_log_save_evaluate

    def stopping(self, *args, **kwargs):
        if self.state.global_step == 2:
            self.control.should_training_stop = True
        return own(self, *args, **kwargs)

    return stopping


def test_nothing_is_saved_where_nothing_was_good(workplace, monkeypatch):
    tiny.break_loss(monkeypatch, at=1)
    with pytest.raises(RunFailed, match="no step before it was good, so nothing is saved"):
        go()
    assert not (workplace / "unlearned").exists()


def test_a_run_that_cannot_be_measured_leaves_nothing_to_go_on_from(workplace, monkeypatch):
    own, calls = unlearning_run.measure, []

    def measure(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1:  # that of the target is there
            raise InputError("the log-probabilities are no numbers")
        return own(*args, **kwargs)

    monkeypatch.setattr(unlearning_run, "measure", measure)
    with pytest.raises(RunFailed, match="no step before it was good, so nothing is saved"):
        go(max_steps=1, save_every=0, fluency_rows=0)
    assert not (workplace / "unlearned").exists()


def test_a_gradient_that_is_not_finite_ends_the_run(workplace, monkeypatch):
    whole = UnlearningTrainer.objective_loss

    def root_at_zero(self, name, model, inputs):  # a finite value whose slope is not
        value = whole(self, name, model, inputs)
        return value + ((value - value.detach()) ** 2).sqrt() if self.state.global_step == 3 else value

    monkeypatch.setattr(UnlearningTrainer, "objective_loss", root_at_zero)
    with pytest.raises(RunFailed, match="step 4: a gradient is not finite; the weights after step 2"):
        go()


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_learning_rate_far_too_high(workplace, adapter):
    args = ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "lr=1e6", "use_cpu=true"]
    args += ["--method", "pdu"]
    done = CliRunner().invoke(app, [*args, "max_steps=4", *(["--adapter", "lora"] if adapter else [])])
    assert done.exit_code == 1, done.output
    assert "not finite" in done.stderr and "lower learning_rate, which was 1e+06" in done.stderr
    saved = workplace / "unlearned" / "model"
    assert not saved.exists()


def test_a_model_whose_figures_are_not_finite_goes_back(workplace, monkeypatch):
    whole, calls = UnlearningTrainer.train, []

    def destroy(self, *args, **kwargs):
        result = whole(self, *args, **kwargs)
        with torch.no_grad():
            self.model.lm_head.weight.fill_(3e38)  # finite, and of no use
        calls.append(self)
        return result

    monkeypatch.setattr(UnlearningTrainer, "train", destroy)
    with pytest.raises(RunFailed, match="a figure of the model that came out is not finite; the weights after step 5"):
        go()
    assert weights(workplace / "unlearned" / "model")["lm_head.weight"].abs().max() < 1


def test_a_model_that_is_broken_is_refused_before_it_is_trained(workplace, two_layers):
    model = AutoModelForCausalLM.from_pretrained("model")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained("model")
    with pytest.raises(
        InputError, match=r"model is broken: its weight model.layers.1.mlp.up_proj.weight holds numbers"
    ):
        go()


def test_a_model_that_is_worse_than_a_guess_is_warned_of(workplace):
    before = go(max_steps=1).record
    assert not [w for w in before["warnings"] if "of no use" in w]
    log = go(method="gradient_ascent", lr=0.5, max_steps=12, out="ruined").record
    assert log["after"]["retain"]["nll"] > 1.5 * math.log(257)
    assert [
        w for w in log["warnings"] if w.startswith("the unlearned model is of no use: its loss on the retain set is")
    ]


def test_one_step_moves_the_model(workplace):
    go(max_steps=1)
    one, two = weights("model"), weights("unlearned/model")
    assert any(not torch.equal(one[k], two[k]) for k in one)
