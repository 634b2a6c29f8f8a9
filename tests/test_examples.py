"""Every example is short, says how it is run, and runs so with a tiny model on a CPU."""

from __future__ import annotations

import ast
import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge.cli import app

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
every = pytest.mark.parametrize("file", EXAMPLES, ids=[f.name for f in EXAMPLES])


def commands(file):
    """The indented lines of its opening docstring that start a program."""
    lines = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()
    return [shlex.split(line) for line in lines if line.startswith(("    expunge ", "    python "))]


@pytest.fixture
def place(workplace, monkeypatch):
    """A folder with the examples and a tiny ``MODEL``; the cache is the test's own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    (workplace / "examples").symlink_to(FOLDER)
    (workplace / "MODEL").symlink_to(workplace / "model")
    return workplace


def test_there_are_examples():
    assert {"own_benchmark.py", "score.py"} <= {f.name for f in EXAMPLES}


@every
def test_an_example_is_short(file):
    assert len(file.read_text().splitlines()) < 60


@every
def test_an_example_runs_as_it_says(file, place, monkeypatch):
    assert commands(file), f"{file.name} does not say how it is run"
    for program, *rest in commands(file):
        if program == "expunge":
            done = CliRunner().invoke(app, rest)
            assert done.exit_code == 0, done.output
        else:
            monkeypatch.setattr(sys, "argv", rest)
            runpy.run_path(rest[0], run_name="__main__")


def test_the_own_benchmark_says_what_is_measured(place):
    (command,) = commands(FOLDER / "own_benchmark.py")
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    said = json.loads((place / "figures" / "figures.json").read_text())
    assert said["defined_in"] == "examples/own_benchmark.py" and said["data"]["left_out"] == []
    assert [(f["part"], f["name"], f["n"]) for f in said["figures"]] == [
        (part, name, 4) for part in ("forget", "retain") for name in ("probability", "rouge_l_recall")
    ]
    assert CliRunner().invoke(app, ["rescore", "figures"]).exit_code == 0
