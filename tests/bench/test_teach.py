"""Teaching on a tiny model: what is taught is learned, nothing else is needed, and it is not done twice."""

from __future__ import annotations

import json
import os
import signal

import pytest

from expunge import models
from expunge.bench.teach import arguments, teach
from expunge.data.sources import load_rows
from expunge.errors import InputError, RunFailed
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.figures import figures, probes
from expunge.training import keeper, signals
from expunge.unlearning import settings as recipe
from expunge.unlearning import train

HOW = {"max_steps": 12, "learning_rate": 0.02, "use_cpu": True, "disable_tqdm": True}


def settings(**more):
    return recipe.make({"model": "model", "forget": [], "training": HOW, **more})


def nll(name, rows):
    loaded = models.load(name)
    return figures(collect(loaded.model, loaded.tokenizer, probes("rows", rows)), "rows")["nll"]


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_taught_rows_are_learned(workplace, adapter):
    rows = load_rows("retain.jsonl")
    teach(rows, settings(adapter=adapter), workplace / "taught")
    said = json.loads((workplace / "taught" / "made.json").read_text())
    assert said["steps"] == 12 and said["rows"] == 5 and said["loss"][1] < said["loss"][0]
    assert said["model"] == models.load("model").fingerprint != models.load("taught").fingerprint
    assert said["schema"] == 1
    assert nll("taught", rows) < nll("model", rows) - 0.1
    assert "Oru" not in (workplace / "taught" / "made.json").read_text()
    assert not (workplace / "taught-training").exists()


def test_teaching_that_breaks_down_saves_nothing(workplace):
    with pytest.raises(RunFailed, match=r"while the model is taught, so nothing is saved; lower teach.learning_rate"):
        teach(load_rows("retain.jsonl"), settings(training=HOW | {"learning_rate": 1e6}), workplace / "taught")
    assert not (workplace / "taught").exists() and not (workplace / "taught-training").exists()


def test_it_is_known_by_its_settings_rows_start_and_weights(workplace, monkeypatch):
    rows, folder = load_rows("retain.jsonl"), workplace / "taught"
    teach(rows, settings(), folder)
    with monkeypatch.context() as m:
        m.setattr(train, "train", lambda *_, **__: pytest.fail("taught again"))
        teach(rows, settings(), folder)
        teach(rows, settings(training=HOW | {"learning_rate": "0.02"}), folder)  # as the command line gives it
        for changed, kept in ((settings(seed=1), rows), (settings(), rows[1:]), (settings(max_length=300), rows)):
            with pytest.raises(InputError, match="was taught with other settings or data"):
                teach(kept, changed, folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        with pytest.raises(InputError, match="was taught with other settings or data"):
            teach(rows, settings(), folder)


def test_five_epochs_unless_told_otherwise(workplace):
    plain = arguments(settings(training={"use_cpu": True}), 32, workplace / "x")
    assert (plain.num_train_epochs, plain.learning_rate) == (5.0, 1e-5)
    lora = arguments(settings(training={"use_cpu": True, "num_train_epochs": 2}, adapter="lora"), 32, workplace / "x")
    assert (lora.num_train_epochs, lora.learning_rate) == (2, pytest.approx(2e-4))


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_teaching_that_was_interrupted_goes_on_within(workplace, adapter, monkeypatch):
    """The weights are those of one that was not, to the bit, and its record spans both parts."""
    rows = load_rows("retain.jsonl")
    how = {"adapter": adapter, "save_every": 0, "training": HOW | {"max_steps": 4}}
    how |= {"lora": {"dropout": 0.3}} if adapter else {}
    teach(rows, settings(**how), workplace / "whole")
    with monkeypatch.context() as m, signals.caught():
        m.setattr(keeper.Keeper, "on_step_begin", ends_at(2), raising=False)
        with pytest.raises(signals.Interrupted, match="after step 2 of 4, which is saved") as end:
            teach(rows, settings(**how), workplace / "cut")
    assert end.value.code == 143 and not (workplace / "cut").exists()
    with pytest.raises(InputError, match=r"saved after step 2, and learning_rate was 0.02 and is now 0.5"):
        teach(rows, settings(**how | {"training": how["training"] | {"learning_rate": 0.5}}), workplace / "cut")
    begun, own = [], train.train
    monkeypatch.setattr(train, "train", lambda *a, **k: (begun.append(k["begin"]), own(*a, **k))[1])
    teach(rows, settings(**how), workplace / "cut")
    assert [place.name for place in begun] == ["checkpoint-2"]
    said = [json.loads((workplace / name / "made.json").read_text()) for name in ("whole", "cut")]
    assert said[0]["output"] == said[1]["output"] and said[0]["loss"] == said[1]["loss"] and said[1]["steps"] == 4
    assert sorted(p.name for p in workplace.iterdir() if p.name.startswith((".", "cut"))) == ["cut"]


def ends_at(step):
    """A method of a callback that has the process told to end while the step after ``step - 1`` is taken."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_step_begin
