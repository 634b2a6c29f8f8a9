"""One benchmark on several models: the same figures as one by one, gone on with, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch import PATH
from tiny_bench import copied, prepare
from typer.testing import CliRunner

from expunge import bench, jobs
from expunge.cli import app
from expunge.evaluation.evaluate import read
from expunge.jobs.tasks import Done

OUT = "in the folder of the finished ones"


@pytest.fixture
def place(workplace, tokenizer, monkeypatch, tmp_path_factory):
    """A folder to work in, with what ``model`` and ``retrained`` answered in the cache."""
    prepare(workplace, tokenizer, monkeypatch)
    copied(tmp_path_factory, "bench-several", workplace, lambda: check(call()), "cache", "out")
    return workplace


def call(*args, models=("model", "retrained"), out="out"):
    named = [text for name in models for text in ("--model", name)]
    given = ["bench", "tofu/forget01", *named, "--data", "tofu", "--limit", "2", "--out", out]
    return CliRunner().invoke(app, [*given, *map(str, args)])


def check(done, code=0):
    assert done.exit_code == code, (done.output[-900:], done.exception)
    return done


def test_each_model_has_its_folder_and_the_figures_it_has_alone(place, monkeypatch):
    said = json.loads(Path("out/models.json").read_text())
    assert [(one["name"], one["folder"]) for one in said["models"]] == [
        ("model", "models/model"),
        ("retrained", "models/retrained"),
    ]
    for one in said["models"]:
        assert one["done"] and one["figures"] == read(Path("out", one["folder"]))["figures"]
    check(call(models=["retrained"], out="alone"))
    assert read("alone")["figures"] == said["models"][1]["figures"] != said["models"][0]["figures"]

    monkeypatch.setattr("expunge.models.load", lambda *_, **__: pytest.fail("a model was loaded"))
    again = check(call("--json"))
    assert json.loads(again.stdout)["models"] == said["models"]
    assert again.stderr.count("which is there already") == 2


def test_a_model_that_fails_is_said_and_the_others_are_kept(place, monkeypatch):
    def spread(tasks, settings, **_):
        assert settings == jobs.Jobs(1)  # for one is left
        return (Done(task.name, error="ValueError: no weights", code=1) for task in tasks)

    monkeypatch.setattr(jobs, "spread", lambda *a, **k: (one for one in spread(*a, **k)))
    shutil.copytree("model", "third")
    done = check(call("--jobs", 2, models=["model", "retrained", "third"]), 1)
    assert done.output.count("failed") == 2 and "warning: third failed: ValueError: no weights" in done.output
    assert [one["done"] for one in json.loads(Path("out/models.json").read_text())["models"]] == [True, True, False]


@pytest.mark.parametrize(
    ("args", "models", "words"),
    [
        (["--limit", 3, OUT], None, "holds figures of several models with another how"),
        (["--jobs", 2], ["model"], "--jobs and --cluster are for several models"),
        (["--processes", 2], None, "with several --model say --jobs N"),
        (["--model-name", "M"], None, "model_name names one model, and 2 are given"),
        ([], ["model", "model"], "the model model is given twice"),
        (["--jobs", 2, "--device", "cuda:0"], None, "contradict each other"),
        ([], ["model", "nowhere"], "nowhere"),
        ([OUT], ["tofu/../model", "retrained"], "is of the model model, not tofu/../model"),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(place, monkeypatch, args, models, words):
    monkeypatch.setattr("expunge.models.load", lambda *_, **__: pytest.fail("a model was loaded"))
    there = ["--out", "out" if OUT in args else "new"]
    done = check(call(*(a for a in args if a != OUT), *there, **({"models": models} if models else {})), 2)
    assert words in done.output and not Path("new").exists()


def test_a_recipe_may_name_them(place):
    made = bench.make_each({"benchmark": "tofu/forget01", "model": ["model", "retrained"], "out": "x"})
    assert {name: (one.model, one.out) for name, one in made.items()} == {
        "model": ("model", "x/models/model"),
        "retrained": ("retrained", "x/models/retrained"),
    }


@pytest.mark.slow
def test_side_by_side_they_are_the_same(place):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(PATH), "OMP_NUM_THREADS": "1", "EXPUNGE_CACHE": "another"}
    models = ["--model", "model", "--model", "retrained", "--method", "npo", "max_steps=3", "use_cpu=true"]
    command = [sys.executable, "-m", "expunge", "bench", "tofu/forget01", *models, "--data", "tofu", "--limit", "2"]
    for out, more in (("one", []), ("two", ["--jobs", "2"])):
        subprocess.run([*command, "--out", out, *more], cwd=place, env=env, check=True)
    said = [json.loads((place / out / "models.json").read_text())["models"] for out in ("one", "two")]
    assert [one | {"seconds": 0} for one in said[0]] == [one | {"seconds": 0} for one in said[1]]
