"""Runs whose numbers are watched: one form for every reason to stop, in the record, on the page and on the terminal."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from transformers import TrainerCallback
from typer.testing import CliRunner

from expunge import methods, record, unlearn
from expunge.cli import app
from expunge.errors import InputError, RunFailed
from expunge.training.trainer import UnlearningTrainer

FAST = {"max_steps": 6, "use_cpu": True, "disable_tqdm": True, "method": "grad_diff", "fluency_rows": 0}
NAMES = ["Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gil", "Hy", "Ina", "Jo", "Kim", "Lu", "Mo", "Ned", "Oz", "Pia", "Quin"]


def go(**kw):
    return unlearn("model", **({"forget": "forget.jsonl", "retain": "retain.jsonl"} | FAST | kw))


def rows(n, place="retain.jsonl"):
    text = [
        json.dumps({"question": f"What is {NAMES[i % 17]}{i}?", "answer": f"A {NAMES[-i % 17]}."}) for i in range(n)
    ]
    with open(place, "w") as file:
        file.write("\n".join(text) + "\n")


def page(out="unlearned"):
    with open(f"{out}/report.html") as file:
        return file.read()


# -- the utility guard ----------------------------------------------------------------------------------------------------
def test_a_guarded_run_goes_back_and_says_so(workplace):
    rows(20)
    arguments = ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "use_cpu=true"]
    arguments += ["max_steps=30", "lr=3e-3", "--keep", "0.9", "--keep-every", "2", "--method", "gradient_ascent"]
    done = CliRunner().invoke(app, [*arguments, "disable_tqdm=true"])
    assert done.exit_code == 0, done.output
    log = record.read(workplace / "unlearned")
    stop, keep = log["stopped"], log["keep"]
    assert stop["reason"] == "utility" and log["training"]["stopped_after"] == stop["step"] > 0
    assert f"warning: {stop['sentence']}" in done.stderr.replace("\n", "") and stop["sentence"] in log["warnings"]
    assert "Stopped by the utility guard" in page() and "below the threshold" in page()
    *good, last = keep["probes"]
    assert last["kept"] < 0.9 <= min(p["kept"] for p in good) and good[-1]["step"] == stop["step"]
    # ascent trains on no retain row, so all are looked at, and the record's own figure is that of the probe
    assert keep["rows"] == 20 == log["data"]["keep_rows"]["rows"] == log["data"]["retain"]["rows"]
    assert log["before"]["retain"]["probability"] == pytest.approx(keep["start"], rel=1e-4)
    assert log["after"]["retain"]["probability"] == pytest.approx(good[-1]["probability"], rel=1e-4)


def test_rows_of_a_guard_are_not_trained_on(workplace, monkeypatch):
    rows(25)
    seen = set()
    whole = UnlearningTrainer.objective_loss

    def watching(self, name, model, inputs):
        if name == "retain":
            batch = inputs["retain"]
            seen.update(
                tuple(ids[mask.bool()].tolist())
                for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            )
        watching.probed = {row.input_ids for row in self.keep.rows}
        return whole(self, name, model, inputs)

    monkeypatch.setattr(UnlearningTrainer, "objective_loss", watching)
    log = go(keep=0.1, max_steps=7, batch_size=3).record
    assert log["data"]["keep_rows"]["rows"] == 5 and log["data"]["retain"]["rows"] == 20 == len(seen)
    assert len(watching.probed) == 5 and not watching.probed & seen
    assert log["stopped"] is None and "Utility guard" in page()
    assert [p["step"] for p in log["keep"]["probes"]] == list(range(1, 8))


def test_rows_of_ones_own(workplace):
    rows(6, "own.jsonl")
    log = go(keep=0.1, keep_rows="own.jsonl", max_steps=2).record
    assert log["data"]["keep_rows"] | {"tokens": 0, "tokens_used": 0, "fingerprint": 0} == {
        "source": "own.jsonl", "rows": 6, "pieces": 6, "tokens": 0, "tokens_used": 0, "fingerprint": 0,
    }  # fmt: skip
    assert log["data"]["retain"]["rows"] == 5 and log["keep"]["threshold"] == 0.1


@pytest.mark.parametrize(
    ("kw", "said"),
    [
        ({"keep": 0.9, "retain": None, "method": "gradient_ascent"}, "keep needs rows that the model must not lose"),
        ({"keep": 0.9}, "5 rows are too few: give 20 or more, or rows for this alone"),
        ({"keep_every": 3}, "keep_every does nothing without keep"),
        ({"keep": 0.9, "keep_rows": "forget.jsonl"}, "keep_rows: 3 rows say little"),
        ({"keep": 1.5}, "keep"),
    ],
)
def test_what_cannot_be_guarded_is_refused_before_a_model_is_loaded(workplace, monkeypatch, kw, said):
    monkeypatch.setattr("expunge.models.load", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match=said):
        go(**kw)


def test_nothing_is_left_of_a_guarded_run_that_kept_too_little_at_once(workplace):
    rows(20)
    with pytest.raises(RunFailed, match=r"fell below keep = 0\.99 at step 6: .* so nothing is saved"):
        go(keep=0.99, keep_every=6, lr=0.1, method="gradient_ascent")
    assert not (workplace / "unlearned").exists()


# -- zero gradients -------------------------------------------------------------------------------------------------------
def ends(at):
    """grad_diff whose losses have no slope from step ``at`` on."""
    whole = UnlearningTrainer.objective_loss

    def loss(self, name, model, inputs):
        value = whole(self, name, model, inputs)
        return value * 0 if self.state.global_step + 1 >= at else value

    return loss


def test_a_run_without_a_gradient_ends_at_once(workplace, monkeypatch):
    monkeypatch.setattr(UnlearningTrainer, "objective_loss", ends(1))
    with pytest.raises(RunFailed, match="the gradient of all 12 tensors that train was exactly 0 in the first 3 steps"):
        go(max_steps=50)
    with pytest.raises(RunFailed, match="exactly 0 in the first step, so nothing is saved"):
        go(max_steps=1)
    assert not (workplace / "unlearned").exists()


def test_a_run_that_is_through_ends_well(workplace, monkeypatch):
    monkeypatch.setattr(UnlearningTrainer, "objective_loss", ends(4))
    log = go(max_steps=50).record
    assert log["stopped"]["reason"] == "zero" and log["stopped"]["step"] == 6 == len(log["steps"])
    assert log["stopped"]["figures"] == {"steps_without_gradient": 3} and log["stopped"]["sentence"] in log["warnings"]
    assert "Stopped: nothing left to do" in page()


# -- the other reasons ----------------------------------------------------------------------------------------------------
class Ends(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step == 2


def test_every_stop_has_the_same_form(workplace, monkeypatch):
    logs = {"callback": go(callbacks=[Ends()]).record}
    tiny.break_loss(monkeypatch, at=4)
    with pytest.raises(RunFailed):
        go(out="broken")
    logs["not_finite"] = record.read(workplace / "broken")
    for reason, log in logs.items():
        stop = log["stopped"]
        assert set(stop) == {"reason", "step", "sentence", "figures"} and stop["reason"] == reason
        assert stop["step"] == log["training"]["stopped_after"] > 0
    assert logs["callback"]["stopped"]["step"] == 2 == logs["not_finite"]["stopped"]["step"]
    assert logs["not_finite"]["stopped"]["figures"] == {"not_finite_at": 4}
    assert "The run broke down" in page("broken") and "Stopped by a callback" in page()


# -- memory and budget ----------------------------------------------------------------------------------------------------
def test_out_of_memory_is_in_record_and_page(workplace, monkeypatch):
    whole = UnlearningTrainer.objective_loss

    def loss(self, name, model, inputs):
        if len(inputs["forget"]["labels"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, name, model, inputs)

    monkeypatch.setattr(UnlearningTrainer, "objective_loss", loss)
    log = go(batch_size=3, method=methods.pdu(budget=50.0)).record
    assert log["budget"]["met"] and not [w for w in log["warnings"] if w.startswith("the budget")]
    assert log["out_of_memory"] == [{"step": 1, "rows": 2}] and log["training"]["per_device_train_batch_size"] == 3
    assert [w for w in log["warnings"] if w.startswith("out of memory at step 1: micro-batches had 3 rows and have 2")]
    assert "micro-batches had 2 rows from step 1 on" in page()


def test_a_budget_that_cannot_be_kept_is_told(workplace, capsys):
    rows(5)
    pdu = methods.pdu(budget=0.5, multiplier=1.0, max_multiplier=3.0, warmup=0.0)
    log = go(method=pdu, max_steps=8, disable_tqdm=False).record
    start, limit = log["before"]["retain"]["nll"], 0.5
    said = f"the budget 0.5 is below the start model's retain loss {start:.4g}, by {start - limit:.3g}"
    assert f"warning: {said}" in capsys.readouterr().err  # before the first step
    budget = log["budget"]
    last = [s["loss/retain"] for s in log["steps"]][-3:]
    assert budget["end"] == pytest.approx(sum(last) / 3) and not budget["met"] and budget["multiplier"] == 3.0
    (told,) = [w for w in log["warnings"] if w.startswith("the budget was not kept")]
    assert (
        f"the retain loss was {budget['end']:.4g} over the last 3 logged steps" in told
        and "with λ at 3, its cap" in told
    )
    assert "The budget of 0.5 on the retain loss was not kept" in page()
