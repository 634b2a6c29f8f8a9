"""An empty text, which is what an unset shell variable leaves, is refused as every name, path and text of every command."""

from __future__ import annotations

import json
import pydoc
import re

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.cli.options import _plain, described

RECIPE, HOW = "expunge.unlearning.settings.Recipe", "expunge.evaluation.probe.EvaluationOptions"
GUARD = ("expunge.guard.settings.GuardOptions", "expunge.guard.settings.Settings")
TARGETS = ["--model", "m", "--targets", "t"]
COMMANDS = {  # command -> the rest of its line, and its settings
    "run": ([], (RECIPE,)),
    "release": ([], (RECIPE, "expunge.release.settings.Release")),
    "reveal": ([], ("expunge.reveal.settings.Reveal",)),
    "bench": (["tofu/forget01"], ("expunge.bench.settings.Bench", HOW)),
    "compare": (["r.yaml"], ("expunge.compare.settings.Compare", HOW)),
    "tune": (["--method", "npo"], ("expunge.tune.settings.Tune", RECIPE)),
    "guard ask": (["Who?", *TARGETS], GUARD),
    "guard serve": (TARGETS, GUARD),
    "guard measure": ([*TARGETS, "--forget", "f", "--retain", "r"], GUARD),
}
FURTHER = [
    "run --parameter", "bench --parameter", "tune --method", "bench --teach-setting", "guard_measure --forget",
    "guard_measure --retain", "guard_measure --out", "guard_serve --name", "guard_serve --host", "reveal --seed-instruction",
]  # fmt: skip
ARGUMENTS = [
    "show",
    "rescore",
    "fingerprint",
    "bench",
    "compare",
    "demo --out",
    "demo --device",
    "guard ask " + " ".join(TARGETS),
]


def call(*args):
    return CliRunner().invoke(app, list(args))


def text_options(command):
    """The options of ``command`` that take a text."""
    shown = call(*command.split(), "--help").output
    for kind in COMMANDS[command][1]:
        for name, field in described(pydoc.locate(kind)).items():
            option = "--" + name.replace("_", "-")
            if re.search(rf"^\s+{option} ", shown, re.MULTILINE) and _plain(field.annotation) is str:
                yield option


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_takes_a_text(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rest, tried = COMMANDS[command][0], set(text_options(command))
    assert (command.startswith("guard") or "--out" in tried) and len(tried) >= 5
    for option in sorted(tried):
        for empty in ("", "  "):
            done = call(*command.split(), *rest, option, empty)
            assert done.exit_code == 2 and "empty text" in done.stderr, (option, done.output)
            assert done.stderr.count("\n") == 1 and option.strip("-").replace("-", "_") in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", FURTHER)
def test_options_of_the_command_alone(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, option = line.split()
    command = command.replace("_", " ")
    done = call(*command.split(), *COMMANDS[command][0], option, "")
    assert done.exit_code == 2 and done.stderr.startswith("expunge: "), done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ARGUMENTS)
def test_arguments(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*line.split(), "")
    assert done.exit_code == 2 and "empty" in done.stderr, done.output
    assert not list(tmp_path.iterdir())


def test_from_a_recipe_and_from_key_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text('model = "m"\nforget = "f.jsonl"\nout = ""\n')
    for args in (["r.toml"], ["model=m", "forget=", "retain=r"], ["model=", "forget=f"]):
        done = call("run", *args)
        assert done.exit_code == 2 and "is an empty text" in done.stderr, json.dumps(args)
