"""A run that ends at the level of a model that never saw the forget rows: which model that is, and what the record says."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from launch import once
from transformers import AutoTokenizer

from expunge import methods, record, unlearn
from expunge.bench.teach import teach
from expunge.data.sources import load_rows
from expunge.errors import InputError
from expunge.training import rate
from expunge.unlearning import alternates, calibrate, in_context, level, settings, unseen
from expunge.unlearning.in_context import Marks
from expunge.unlearning.rows import Data

FAST = {"use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
ROWS = {"forget": "forget.jsonl", "retain": "retain.jsonl"}


def test_a_run_ends_at_the_level_and_says_how_far_it_is(workplace):
    made = settings.make({"model": "model", "forget": "-", "training": {**FAST, "num_train_epochs": 25}})
    teach(load_rows("forget.jsonl"), made, Path("taught"))
    done = unlearn("taught", **ROWS, method="level", level="model", num_train_epochs=60, out="out", **FAST)
    said = record.read("out")
    assert (said["level"]["source"], said["level"]["model"]) == ("model", "model") and said["level"]["rows"] == said[
        "data"
    ]["forget"]["rows"]
    assert said["level"]["verdict"] in ("at", "near") and said["stopped"]["reason"] == "level"
    assert abs(said["level"]["difference"]) < said["level"]["distance_before"]
    page = Path("out/report.html").read_text()
    assert "level of a model that never saw the forget set" in page and "there were no holdout rows" in page
    assert said["level"]["uncertainty"] is None and said["level"]["in_context"] is True
    assert done.record["training"]["stopped_after"] < 60 * 2


@pytest.fixture
def taught(workplace, tmp_path_factory):
    """``taught/``: ``model/``, taught the forget rows for a few epochs; once for many tests."""

    def make(shared):
        made = settings.make({"model": "model", "forget": "-", "training": {**FAST, "num_train_epochs": 5}})
        teach(load_rows("forget.jsonl"), made, shared / "taught")

    shutil.copytree(once(tmp_path_factory, "level", make) / "taught", "taught")


@pytest.mark.parametrize(("given", "used"), [({}, 0.0123), ({"learning_rate": 1e-2}, 1e-2), ({"lr": 1e-2}, 1e-2)])
def test_the_learning_rate_is_found_unless_it_is_given(taught, monkeypatch, given, used):
    monkeypatch.setattr(rate, "suited", lambda trainer: 0.0123)
    quick = {k: v for k, v in FAST.items() if k != "learning_rate"} | given
    done = unlearn("taught", **ROWS, method="level", level="model", max_steps=1, out="out", **quick)
    first = done.record["steps"][0]["learning_rate"]  # a tenth, in the first of ten steps of warm-up
    assert (done.record["training"]["learning_rate"], 10 * first) == (used, pytest.approx(used))


def test_of_an_adapter_it_is_the_base(workplace):
    unlearn("model", **ROWS, method="gradient_ascent", out="first", adapter="lora", max_steps=1, **FAST)
    made = settings.make({"model": "first/model", "forget": "-"})
    assert Path(level.model_of(made)).samefile("model")
    assert level.model_of(made.model_copy(update={"level": "other"})) == "other"
    assert level.model_of(settings.make({"model": "model", "forget": "-"})) is None


def test_of_plain_texts_nothing_gives_a_level(workplace):
    with pytest.raises(InputError, match=r"name a model with --level .* with --holdout$"):
        unlearn("model", forget=["Ada lives in Oru."], retain="retain.jsonl", method="blur_level", **FAST)


def test_a_level_that_nothing_reads(workplace):
    with pytest.raises(InputError, match="level does nothing under npo"):
        unlearn("model", **ROWS, method="npo", level="model", **FAST)


def test_another_vocabulary_is_no_level(workplace, tiny_model):
    shutil.copytree("model", "other")
    tokenizer = AutoTokenizer.from_pretrained("other")
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained("other")
    with pytest.raises(InputError, match="another vocabulary"):
        unlearn("model", **ROWS, method="level", level="other", **FAST)


def test_holdout_rows_give_it_where_no_model_is_named(workplace):
    rows = load_rows("forget.jsonl")
    unseen = [
        {"question": f"Where does {n} live?", "answer": f"{n} lives in {p}."} for n, p in (("Ira", "Kel"), ("Jo", "Mu"))
    ]
    made = settings.make({"model": "model", "forget": "-", "training": {**FAST, "num_train_epochs": 25}})
    teach(rows, made, Path("taught"))
    done = unlearn(
        "taught", **ROWS, holdout=unseen, method="level", num_train_epochs=60, out="out", **FAST
    )  # fmt: skip
    said = record.read("out")["level"]
    assert (said["source"], said["model"], said["rows"]) == ("holdout", None, 3) and said["distance_before"] > 0
    assert said["verdict"] in ("at", "near") and done.record["training"]["stopped_after"] < 60
    assert done.record["data"]["holdout"]["rows"] == 2 and "holdout_level" not in done.record["training"]
    page = Path("out/report.html").read_text()
    assert "as estimated from the holdout rows" in page and said["uncertainty"] > 0
    assert f"The level itself is known to ±{said['uncertainty']:.2g} nats a token" in page
    assert f"the level itself is known to ± {said['uncertainty']:.2g}" in done.record["stopped"]["sentence"]


def test_holdout_rows_scale_what_a_model_says(tmp_path):
    made = settings.make({"model": "m", "forget": "-", "level": "earlier", "holdout": "h"})
    assert level.described(made) == {"source": "model and holdout", "model": "earlier"}
    loaded = {"m": tiny.model(), "earlier": tiny.model(seed=1)}
    target = SimpleNamespace(
        model=loaded["m"], tokenizer=SimpleNamespace(pad_token_id=0, bos_token_id=1, eos_token_id=None)
    )
    data = Data({}, {"forget": tiny.examples(0, 3), "holdout": tiny.examples(9, 4)}, [])
    held, warnings = level.loader(
        made, methods.level(), lambda name: SimpleNamespace(model=loaded[name]), data, target, tmp_path
    )
    expected = calibrate.calibrated(
        loaded["earlier"], loaded["m"], data.examples["forget"], data.examples["holdout"], 0
    )
    assert warnings == [] and held.rows["forget"].keys() == {0, 1, 2} and held.calibration == expected.calibration
    assert all(torch.equal(held.rows["forget"][i], values) for i, values in expected.rows["forget"].items())


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("holdout", [True, False])
def test_rows_to_keep_are_read_first_where_the_user_gave_them(tmp_path, monkeypatch, given, holdout):
    """Those that the model wrote itself are of other kinds."""
    said = {"retain": "r"} if given else {}
    made = settings.make(
        {"model": "m", "forget": "-", "level": "earlier", **({"holdout": "h"} if holdout else {}), **said}
    )
    streams = {"forget": tiny.examples(0, 3), "retain": tiny.examples(20, 5)}
    few, read = tiny.examples(30, 2), []
    others = tiny.examples(9, 4) if holdout else few
    monkeypatch.setattr(unseen, "few_made_up", lambda *args: few)
    monkeypatch.setattr(calibrate, "calibrated" if holdout else "as_sure", lambda *args: read.append(args[3:]))
    tokenizer = SimpleNamespace(pad_token_id=0, bos_token_id=1, eos_token_id=None)
    target = SimpleNamespace(model=tiny.model(), tokenizer=tokenizer)
    data = Data({}, streams | ({"holdout": others} if holdout else {}), [])
    level.loader(made, methods.level(), lambda _: SimpleNamespace(model=None), data, target, tmp_path)
    assert read == [(others, 0, streams["retain"] if given else (), Marks(1))]


def test_made_up_answers_of_several_paragraphs_part_no_rows(tmp_path, monkeypatch):
    """They give a temperature alone; what the user gave says whether a blank line can stand for an end."""
    made = settings.make({"model": "m", "forget": "-", "level": "earlier", "retain": "r"})
    seen, streams = [], {"forget": tiny.examples(0, 3), "retain": tiny.examples(20, 5)}
    monkeypatch.setattr(unseen, "few_made_up", lambda *args: tiny.examples(30, 2))
    monkeypatch.setattr(in_context, "marks", lambda tokenizer, rows, template: seen.append(list(rows)))
    monkeypatch.setattr(calibrate, "as_sure", lambda *args: None)
    target = SimpleNamespace(model=None, tokenizer=SimpleNamespace(pad_token_id=0))
    level.loader(made, methods.level(), lambda _: SimpleNamespace(model=None), Data({}, streams, []), target, tmp_path)
    assert seen == [[*streams["forget"], *streams["retain"]]]


@pytest.mark.parametrize("template", [True, False])
def test_rows_without_a_template_are_read_as_one_text(tmp_path, monkeypatch, template):
    """A tokenizer's template parts them where it has one and the run takes it."""
    made = settings.make({"model": "m", "forget": "-", "level": "earlier", "holdout": "h", "chat_template": template})
    seen = []
    monkeypatch.setattr(in_context, "marks", lambda tokenizer, rows, template: seen.append((len(rows), template)))
    monkeypatch.setattr(calibrate, "calibrated", lambda *args: None)
    streams = {"forget": tiny.examples(0, 3), "holdout": tiny.examples(9, 4)}
    for own in (None, "{{ messages }}"):
        tokenizer = SimpleNamespace(pad_token_id=0, chat_template=own)
        target = SimpleNamespace(model=None, tokenizer=tokenizer)
        data = Data({}, streams, [])
        level.loader(made, methods.level(), lambda _: SimpleNamespace(model=None), data, target, tmp_path)
    assert seen == [(7, False), (7, template)]


def test_without_any_the_model_makes_answers_up(workplace, monkeypatch):
    monkeypatch.setattr(alternates, "generated", lambda rows, *_, **__: ["Ada lives in Kel.", "", "Cy lives in Mu."])
    made = settings.make({"model": "model", "forget": "-", "training": {**FAST, "num_train_epochs": 25}})
    teach(load_rows("forget.jsonl"), made, Path("taught"))
    done = unlearn("taught", **ROWS, method="level", max_steps=2, out="out", **FAST)
    said = record.read("out")
    assert (said["level"]["source"], said["level"]["model"]) == ("alternates", None)
    assert "alternates.json" in said["private_files"] and Path("out/alternates.json").stat().st_mode & 0o77 == 0
    assert any("answers that the model made up" in w for w in done.record["warnings"])
    assert "answers that the model made up" in Path("out/report.html").read_text()
    monkeypatch.setattr(alternates, "generated", lambda rows, *_, **__: [""] * len(rows))
    with pytest.raises(InputError, match=r"made up no other answers .* --level, .* --holdout"):
        unlearn("taught", **ROWS, method="level", max_steps=2, out="none", **FAST)
