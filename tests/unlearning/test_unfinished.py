"""The same command again goes on from what an unfinished run saved, to the bit; another command is told so."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import tiny
import torch
from resumed import FAST, WAYS, assert_same, default_handlers, go, weights
from transformers import TrainerCallback
from typer.testing import CliRunner

from expunge import methods, models, record
from expunge.cli import app
from expunge.data import chat, sources
from expunge.errors import InputError, RunFailed
from expunge.training import manifest, signals
from expunge.training.trainer import UnlearningTrainer


@pytest.fixture(autouse=True)
def _handlers():
    with default_handlers():
        yield


class StopAfter(TrainerCallback):
    """A signal in the optimizer step that ends as the ``step``-th."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


def stopped(step, **kw):
    with pytest.raises(signals.Interrupted, match=f"stopped after step {step} of .*, which is saved"):
        go(**kw, callbacks=[StopAfter(step)])


@pytest.fixture
def known(workplace):
    """The work place with a model that was taught the forget rows, and text that it does not know."""
    rows = [{"question": f"Where is {n}?", "answer": f"{n} is at {n[::-1]}."} for n in ("Quork", "Zeb", "Vux")]
    Path("holdout.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    target = models.load("model")
    batch = tiny.batch([chat.encode(row, target.tokenizer) for row in sources.load_rows("forget.jsonl")])
    optimizer = torch.optim.AdamW(target.model.parameters(), lr=0.02)
    for _ in range(60):
        target.model(**{key: batch[key] for key in ("input_ids", "attention_mask", "labels")}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    target.model.save_pretrained("model")
    return workplace


def test_a_run_that_was_stopped_goes_on_to_the_bit(workplace, monkeypatch):
    from expunge.unlearning import run

    how = WAYS["lora"] | {"examples": 1}
    go(out="whole", **how)
    stopped(3, out="cut", **how)
    assert not Path("cut/run.json").exists()
    (place,) = Path("cut/unfinished").iterdir()
    assert (place / "expunge.json").stat().st_mode & 0o777 == 0o600  # it quotes an answer
    measured, measure = [], run.measure
    monkeypatch.setattr(run, "measure", lambda *args, **kw: measured.append(1) or measure(*args, **kw))
    log = go(out="cut", **how).record
    assert measured == [1] and log["examples"][0]["before"]  # what was measured before is not measured again
    assert_same("cut", "whole")
    assert [part["from_step"] for part in log["parts"]] == [0, 3]
    assert log["seconds"] == sum(part["seconds"] for part in log["parts"]) and len(record.read("whole")["parts"]) == 1
    assert not Path("cut/unfinished").exists() and "in 2 parts" in Path("cut/report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_to_the_bit_from_every_step(known, way):
    how = WAYS[way]
    log = go(out="whole", **how).record
    steps = len(log["steps"])
    assert way != "holdout" or 2 < log["training"]["stopped_after"] == steps < 40
    assert way != "keep" or 2 < log["stopped"]["step"] == steps - 2 < 38
    for step in range(1, steps + 1):
        stopped(step, out="cut", **how)
        go(out="cut", **how)
        assert_same("cut", "whole")
        shutil.rmtree("cut")


def test_other_settings_or_data_are_refused_and_fresh_starts_over(workplace, monkeypatch):
    stopped(2, max_steps=3)
    with monkeypatch.context() as m:
        m.setattr(models, "load", lambda *a, **k: 1 / 0)
        for other, said in [
            ({"max_steps": 4}, "max_steps was 3 and is now 4"),
            ({"max_steps": 3, "learning_rate": 0.01}, "learning_rate was 0.02 and is now 0.01"),
            ({"max_steps": 3, "method": methods.npo(beta=0.5)}, r"beta was 0\.1 and is now 0\.5"),
            ({"max_steps": 3, "seed": 1}, "seed was 0 and is now 1"),
            ({"max_steps": 3, "method": "pdu"}, "method was npo and is now pdu"),
            ({"max_steps": 3, "per_device_train_batch_size": 3}, "rows a step was 1 and is now 3"),
            ({"max_steps": 3, "forget": "retain.jsonl", "retain": "forget.jsonl"}, "the forget set is another"),
            ({"max_steps": 3, "chat_template": False}, "chat_template was True and is now False"),
            ({"max_steps": 3, "adapter": "lora"}, "adapter was not given and is now lora"),
        ]:
            with pytest.raises(
                InputError, match=f"unlearned holds an unfinished run, saved after step 2, and {said}; .*--fresh"
            ):
                go(**other)
        (workplace / "link.jsonl").symlink_to("forget.jsonl")
        with pytest.raises(ZeroDivisionError):  # the same rows under another name are the same, so the model is loaded
            go(max_steps=3, forget="link.jsonl", title="another", save_every="1h")
    shutil.copytree("model", "other")
    other = models.load("other").model
    torch.nn.init.zeros_(other.lm_head.weight)
    other.save_pretrained("other")
    with pytest.raises(InputError, match="the model's weights are others"):
        go("other", max_steps=3)
    assert go(max_steps=4, fresh=True).record["parts"][0]["from_step"] == 0
    assert sorted(p.name for p in Path("unlearned").iterdir()) == ["README.md", "model", "report.html", "run.json"]


def test_a_finished_run_is_refused_and_done_anew_with_overwrite(workplace):
    stopped(2, max_steps=3, save_strategy="steps", save_steps=1)
    go(max_steps=3, save_strategy="steps", save_steps=1)
    with pytest.raises(InputError, match=r"an earlier run's run\.json is here"):
        go(max_steps=3, save_strategy="steps", save_steps=1)
    log = go(max_steps=3, save_strategy="steps", save_steps=1, overwrite=True).record
    assert [part["from_step"] for part in log["parts"]] == [0]  # not from the checkpoints of the finished run
    stopped(1, max_steps=2, overwrite=True)
    assert Path("unlearned/run.json").exists() and len(weights("unlearned"))  # the earlier result, until it is replaced
    assert go(max_steps=2, overwrite=True).record["parts"][1]["from_step"] == 1


def test_a_torn_checkpoint_is_skipped_for_the_one_before(workplace):
    how = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    go(out="whole", **how)
    stopped(3, out="cut", **how)
    file = Path("cut/checkpoints/checkpoint-3/optimizer.pt")
    file.write_bytes(file.read_bytes()[:-1])
    Path("cut/checkpoints/.checkpoint-4.tmp").mkdir()
    assert go(out="cut", **how).record["parts"][1]["from_step"] == 2
    assert_same("cut", "whole")
    assert sorted(p.name for p in Path("cut/checkpoints").iterdir()) == [f"checkpoint-{n}" for n in (1, 2, 3)]


def test_weights_alone_are_not_gone_on_from(workplace):
    """The user's checkpoints may lack the optimizer; the run's own never do."""
    how = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2, "save_only_model": True, "save_every": 0}
    stopped(2, **how)
    assert not Path("unlearned/checkpoints/checkpoint-2/optimizer.pt").exists()
    assert go(**how).record["parts"][1]["from_step"] == 2


def test_a_checkpoint_that_could_not_be_written_is_told_in_record_and_exit_code(workplace, monkeypatch):
    def full(place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "seal", full)
    with pytest.raises(
        RunFailed, match=r"checkpoint-1 could not be written \(no space left on device\), nor could 1 more"
    ) as e:
        go(max_steps=2, save_every=0)
    assert "could not be written" in record.read("unlearned")["warnings"][-1] and e.value.result.model
    assert sorted(p.name for p in Path("unlearned").iterdir()) == ["model", "report.html", "run.json"]


RUN = ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--method", "npo"]
RUN += [f"{key}={value}" for key, value in FAST.items()]


def test_the_command_line_says_the_command_that_goes_on(workplace, monkeypatch):
    step = UnlearningTrainer.training_step

    def struck(self, *args, **kwargs):
        if self.state.global_step == 1 and not self.keeper.begin:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(UnlearningTrainer, "training_step", struck)
    monkeypatch.setattr("expunge.cli.run.memory_plan", lambda *_, **__: {})
    args = [*RUN, "max_steps=3", "--out", "new one", "--fresh"]
    done = CliRunner().invoke(app, args)
    said = "stopped after step 2 of 3, which is saved; go on with: expunge run --model model .* --out 'new one'\n$"
    assert done.exit_code == 130 and re.search(said, done.stderr)
    plan = CliRunner().invoke(app, [*args[:-1], "--dry-run"])
    assert "goes on    after step 2\n" in plan.stdout
    os.utime("model/model.safetensors", ns=(0, 1))
    plan = CliRunner().invoke(app, [*args[:-1], "--dry-run"])
    assert "goes on    after step 2, unless the model's weights are others: " in plan.stdout
    done = CliRunner().invoke(app, args[:-1])
    assert done.exit_code == 0 and len(record.read("new one")["parts"]) == 2


def test_a_signal_between_the_steps_says_up_to_where_the_run_is_saved(workplace, monkeypatch):
    from expunge.unlearning import outcome

    def struck(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as m:
        m.setattr(outcome, "measured", struck)
        with pytest.raises(signals.Interrupted, match="the run is saved up to step 2; the same call goes on"):
            go(max_steps=2, save_every="0s")
        with pytest.raises(signals.Interrupted, match="before anything was saved; the same call starts over"):
            go(max_steps=1, out="other")
    assert go(max_steps=2, save_every="0s").record["parts"][1]["from_step"] == 2
