"""The command line as a person meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from typer.testing import CliRunner

from expunge.cli import app
from expunge.method import entries

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


RELEASE = ["release", "--model", "model", "--forget", "forget.jsonl", "--steps", "1"]


def test_release(workplace):
    done = call(*RELEASE, "--retain", "retain.jsonl", "--out", "there", "--utility-budget", "none", "--rank", "2",
                "--forget-coefficient", "0.5", "lora.r=2", *FAST)  # fmt: skip
    assert done.exit_code == 0, done.output
    log = json.loads((workplace / "there" / "run.json").read_text())
    assert log["method"]["parameters"]["forget_coefficient"] == 0.5 and log["release"]["budget"] is None
    assert "0 (target)" in done.output and "Step 1 is the result: all steps were taken." in done.output
    assert "cut to rank 2; that lost" in done.output and "report.html" in done.output


def test_release_of_a_recipe(workplace):
    (workplace / "r.toml").write_text('model="model"\nforget="forget.jsonl"\nutility="retain.jsonl"\nsteps=3\n')
    done = call("release", "r.toml", "--steps", "1", "--merge", "orthogonality=0", *FAST)
    assert done.exit_code == 0, done.output
    log = json.loads((workplace / "unlearned" / "run.json").read_text())
    assert log["method"]["parameters"]["steps"] == 1 and log["release"]["utility_figure"] == "utility/perplexity"
    assert (workplace / "unlearned" / "model" / "model.safetensors").is_file()


def test_release_tells_what_to_mend(workplace):
    for args in (
        ["release"],
        [*RELEASE, "--rank", "x"],
        [*RELEASE, "--rank", "2", "--merge"],
        [*RELEASE, "method=npo"],
    ):
        done = call(*args)
        assert done.exit_code == 2 and done.stderr.strip().count("\n") == 0, done.output


def test_errors_are_one_sentence_and_exit_2(workplace):
    for args in ([*RUN, "--method", "nppo"], [*RUN, "-p", "beta=x", "--method", "npo"], ["run"], ["show", "blurnpo"]):
        done = call(*args)
        assert done.exit_code == 2, done.output
        assert "Traceback" not in done.output
    assert call(*RUN, "--method", "nppo").stderr.strip().count("\n") == 0


def test_methods_and_show():
    listed = call("methods").output
    for name in entries():
        assert name in listed
        page = call("show", name).output
        assert entries()[name].paper in page and re.search(r"source: .*methods/\w+\.py:\d", page)


def test_help_imports_nothing_heavy():
    code = "import sys; from expunge.cli import app; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
