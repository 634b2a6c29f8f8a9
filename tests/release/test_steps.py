"""The steps of a release in its folder: interrupted, gone on from, damaged, of other settings."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from tiny_release import LORA, figures, go, logits, watched

from expunge import files, models
from expunge.errors import InputError
from expunge.release import modules, steps
from expunge.training import keeper, signals
from expunge.unlearning import train

DROPOUT = {"lora": LORA | {"dropout": 0.3}, "steps": 3}


def test_a_restart_goes_on_after_the_last_whole_step(workplace, monkeypatch):
    whole = go(**DROPOUT, out="whole")
    train, calls = modules.train, []

    def die(*a, **k):
        calls.append(1)
        if len(calls) == 4:  # in the forget module of the second step
            raise KeyboardInterrupt
        return train(*a, **k)

    monkeypatch.setattr(modules, "train", die)
    with pytest.raises(KeyboardInterrupt):
        go(**DROPOUT, out="cut")
    files_left = sorted(f.name for f in (workplace / "cut" / "steps").iterdir())
    assert files_left == ["00.json", "01.json", "01.safetensors"] and not (workplace / "cut" / "run.json").exists()
    calls[:] = [1] * 10
    again = go(**DROPOUT, out="cut")
    assert len(calls) == 14  # two steps of two modules
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert figures(again.record) == figures(whole.record)
    weights = [files.sha256_file(workplace / w / "model" / "adapter_model.safetensors") for w in ("whole", "cut")]
    assert weights[0] == weights[1]
    rows = [[{k: v for k, v in s.items() if k != "seconds"} for s in r.record["steps"]] for r in (whole, again)]
    assert rows[0] == rows[1]


def test_a_restart_goes_on_within_a_module(workplace, monkeypatch):
    """Told to end in the second step's training of a module: the same call goes on from that training's checkpoint."""
    how = DROPOUT | {"steps": 2, "save_every": 0}
    whole = go(**how, out="whole")

    def on_step_begin(self, args, state, control, **kwargs):
        if args.output_dir.endswith("02-forget") and state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as m:
        m.setattr(keeper.Keeper, "on_step_begin", on_step_begin, raising=False)
        with pytest.raises(signals.Interrupted, match="after step 2 of 3, which is saved"):
            go(**how, out="cut")
    begun, own = [], train.train
    monkeypatch.setattr(train, "train", lambda *a, **k: (begun.append(k["begin"]), own(*a, **k))[1])
    again = go(**how, out="cut")
    assert [place.name for place in begun] == ["checkpoint-3", "checkpoint-2"]
    weights = [files.sha256_file(workplace / w / "model" / "adapter_model.safetensors") for w in ("whole", "cut")]
    assert weights[0] == weights[1] and figures(again.record) == figures(whole.record)
    assert not (workplace / "cut" / "checkpoints").exists()


def test_fresh_starts_over(workplace, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(modules, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(out="cut")
    first = (workplace / "cut" / "steps" / "00.json").read_text()
    with pytest.raises(KeyboardInterrupt):
        go(out="cut", seed=1, fresh=True)  # other settings would be refused
    assert (workplace / "cut" / "steps" / "00.json").read_text() != first


def test_figures_that_are_no_number_are_read_back_as_they_were(tmp_path):
    figures = {"u": {"nan": math.nan, "up": math.inf, "down": -math.inf, "n": 3, "y": 0.1}}
    steps.write(steps.Step(0, figures), tmp_path, {"seed": 0})
    text = (tmp_path / "00.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["schema"] == 1
    (read,) = steps.read(tmp_path, {"seed": 0})
    assert repr(read.figures) == repr(figures)
    before = {k: v for k, v in json.loads(text).items() if k != "schema"} | {"figures": figures}
    (tmp_path / "00.json").write_text(json.dumps(before))  # as it was written before: no schema, NaN as Python says it
    assert steps.read(tmp_path, {"seed": 0})[0].figures["u"]["y"] == 0.1
    (tmp_path / "00.json").write_text(json.dumps(before | {"schema": 2}))
    with pytest.raises(InputError, match="has schema 2"):
        steps.read(tmp_path, {"seed": 0})


def test_a_damaged_step_is_taken_again(workplace):
    first = go(out="one")
    (workplace / "one" / "run.json").unlink()
    weights = workplace / "one" / "steps" / "02.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    again = go(out="one")
    assert torch.equal(logits(again.model), logits(first.model))


def test_steps_of_other_settings_are_not_gone_on_from(workplace):
    few = {"max_steps": 1, "steps": 1}
    go(**few)
    (workplace / "unlearned" / "run.json").unlink()
    (workplace / "other.jsonl").write_text((workplace / "retain.jsonl").read_text().replace("Ven", "Van"))
    other = models.load("model")
    with torch.no_grad():
        other.model.lm_head.weight[0, 0] += 1
    models.save(other.model, other.tokenizer, "other")
    for change, message in [
        ({"forget_coefficient": 0.31}, "another forget_coefficient;"),
        ({"seed": 1}, "another seed;"),
        ({"lora": LORA | {"r": 3}}, "another r;"),
        ({"learning_rate": 0.03, "orthogonality": 0}, "another learning_rate, orthogonality;"),
        ({"retain": "other.jsonl"}, "another retain set;"),
        ({"utility": "other.jsonl"}, "another utility;"),
        ({"model": "other"}, "another model;"),
        ({"look": watched([1.0] * 9)}, "another look;"),
    ]:
        with pytest.raises(InputError, match=message):
            go(**(few | change))
    (workplace / "unlearned" / "steps" / "notes.txt").write_text("mine")
    log = go(**few, seed=1, overwrite=True).record
    assert len(log["release"]["trajectory"]) == 2 and (workplace / "unlearned" / "steps" / "notes.txt").exists()


def test_steps_that_something_else_was_measured_after_are_not_gone_on_from(workplace):
    few, ten = {"max_steps": 1, "steps": 1}, replace(watched([1.0] * 9), name="ten rows")
    go(look=ten, **few)
    (workplace / "unlearned" / "run.json").unlink()
    with pytest.raises(InputError, match="another look;"):
        go(look=replace(ten, name="fifty rows"), **few)


def test_more_steps_a_budget_and_another_rank_go_on_from_the_same_steps(workplace, monkeypatch):
    first = go(steps=1).record
    calls, train = [], modules.train
    monkeypatch.setattr(modules, "train", lambda *a, **k: calls.append(1) or train(*a, **k))
    with pytest.raises(InputError, match=r"an earlier run's run\.json is here"):
        go(steps=2)
    more = go(steps=2, rank=2, utility_budget=10.0, overwrite=True, learning_rate="0.02").record
    assert len(calls) == 2 and figures(more)[:2] == figures(first)
    fewer = go(steps=1, overwrite=True).record
    assert len(calls) == 2 and fewer["release"]["kept"] == 1 and len(fewer["release"]["trajectory"]) == 2
    assert fewer["after"] == first["after"] and fewer["output"] == first["output"]
