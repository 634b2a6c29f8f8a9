"""Every snippet of the README runs as it stands, in an empty folder with a tiny model."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from launch import PATH
from typer.testing import CliRunner

from expunge.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"<!-- run by tests/test_readme.py -->\n```(\w+)\n(.*?)```", README, re.DOTALL)
[SEVERAL] = re.findall(r"<!-- run by test_several_processes -->\n```console\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.removeprefix("$ ") for line in SEVERAL.splitlines()]
PROGRAMS = {
    "expunge": "expunge",
    "accelerate": "accelerate.commands.accelerate_cli",
    "torchrun": "torch.distributed.run",
}
FAST = ["max_steps=2", "disable_tqdm=true", "use_cpu=true"]


def test_the_readme_has_snippets_of_each_kind():
    assert {kind for kind, _ in SNIPPETS} == {"console", "python", "toml"}


@pytest.mark.parametrize(("kind", "text"), SNIPPETS, ids=[f"{k}-{i}" for i, (k, _) in enumerate(SNIPPETS)])
def test_snippet(workplace, monkeypatch, kind, text):
    if kind == "console":
        _, *args = shlex.split(text.removeprefix("$ "))
        done = CliRunner().invoke(app, [*args, *FAST])
        assert done.exit_code == 0, done.output
        assert (workplace / "unlearned" / "report.html").exists()
    elif kind == "toml":
        (workplace / "recipe.toml").write_text(text)
        _, *args = shlex.split(text.splitlines()[0].removeprefix("# "))
        done = CliRunner().invoke(app, [*args, *FAST])
        assert done.exit_code == 0, done.output
        assert (workplace / "unlearned-3" / "model" / "adapter_config.json").exists()
    else:
        import expunge.training.arguments

        suited = expunge.training.arguments.defaults
        monkeypatch.setattr(
            expunge.training.arguments,
            "defaults",
            lambda *a, **k: suited(*a, **k) | {"max_steps": 2, "use_cpu": True, "disable_tqdm": True},
        )
        exec(compile(text, "README.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=[f"{shlex.split(c)[0]}-{i}" for i, c in enumerate(COMMANDS)])
def test_several_processes(command, workplace):
    """The section on several GPUs, as it is written, on the CPU."""
    for name in ("recipes", "examples"):
        (workplace / name).symlink_to(ROOT / name)
    program, *rest = shlex.split(command)
    training = "run" in rest
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "MASTER_"))}
    env |= {"PYTHONPATH": os.pathsep.join(PATH), "CUDA_VISIBLE_DEVICES": "", "EXPUNGE_CACHE": str(workplace / "cache")}
    typed = [sys.executable, "-m", PROGRAMS[program], *rest, *(FAST[:2] if training else [])]
    done = subprocess.run(typed, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = workplace / (rest[rest.index("--out") + 1] if training else "figures")
    assert (folder / ("run.json" if training else "figures.json")).exists()
    assert done.stdout.count("report.html") == 1
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr, done.stderr
