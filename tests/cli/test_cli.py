"""The command line as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys

from typer.testing import CliRunner

from expunge.cli import app
from expunge.method import METHODS

RUN = ["run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
FAST = ["max_steps=2", "disable_tqdm=true", "use_cpu=true"]


def call(*args):
    return CliRunner().invoke(app, list(args))


def test_run(workplace):
    done = call(*RUN, "--method", "npo", "-p", "beta=0.5", "--out", "there", *FAST)
    assert done.exit_code == 0, done.output
    log = json.loads((workplace / "there" / "run.json").read_text())
    assert log["method"]["parameters"]["beta"] == 0.5 and len(log["steps"]) == 2
    assert "probability of the forget answers" in done.output and "report.html" in done.output


def test_run_of_a_recipe(workplace):
    (workplace / "r.toml").write_text(
        'model="model"\nforget="forget.jsonl"\nretain="retain.jsonl"\nmethod="grad_diff"\n'
    )
    done = call("run", "r.toml", "--seed", "4", "method.retain_weight=2", *FAST)
    assert done.exit_code == 0, done.output
    log = json.loads((workplace / "unlearned" / "run.json").read_text())
    assert log["seed"] == 4 and log["method"]["parameters"]["retain_weight"] == 2.0


def test_errors_are_one_sentence_and_exit_2(workplace):
    for args in ([*RUN, "--method", "nppo"], [*RUN, "-p", "beta=x", "--method", "npo"], ["run"], ["show", "blurnpo"]):
        done = call(*args)
        assert done.exit_code == 2, done.output
        assert "Traceback" not in done.output
    assert call(*RUN, "--method", "nppo").stderr.strip().count("\n") == 0


def test_methods_and_show():
    listed = call("methods").output
    for name in METHODS:
        assert name in listed
        page = call("show", name).output
        assert METHODS[name].paper in page and "source:" in page and "methods.py:" in page


def test_help_imports_nothing_heavy():
    code = "import sys; from expunge.cli import app; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
