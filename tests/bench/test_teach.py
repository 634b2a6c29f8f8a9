"""Teaching on a tiny model: what is taught is learned, nothing else is needed, and it is not done twice."""

from __future__ import annotations

import json

import pytest

from expunge import models
from expunge.bench.teach import arguments, teach
from expunge.data.sources import load_rows
from expunge.errors import InputError, RunFailed
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.figures import figures, probes
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
