"""Every snippet of the README runs as it stands, in an empty folder with a tiny model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge.cli import app

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"<!-- run by tests/test_readme.py -->\n```(\w+)\n(.*?)```", README, re.DOTALL)
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
