"""Dockerfile and devcontainer, which nothing here builds: the paths, extras and commands that they name exist."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_what_is_copied_exists_and_is_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {p for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE) for p in line.split()[:-1]}
    assert copied == allowed and all((ROOT / p).exists() for p in copied)
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "src"} <= copied  # what a build reads


def test_the_extras_and_python_are_the_projects():
    named = {e for text in re.findall(r"EXTRAS=([\w,-]+)", DOCKERFILE) for e in text.split(",")}
    assert named == {"all", "gpu"} and named <= set(PROJECT["optional-dependencies"])
    python = re.search(r"PYTHON=([\d.]+)", DOCKERFILE)[1]
    assert any(c.endswith(f":: {python}") for c in PROJECT["classifiers"])
    lowest = next(d for d in PROJECT["dependencies"] if d.startswith("torch"))
    assert f'"{lowest}"' in DOCKERFILE and "TORCH=cpu" in DOCKERFILE


def test_it_runs_the_command_as_no_root():
    assert 'ENTRYPOINT ["expunge"]' in DOCKERFILE and "expunge" in PROJECT["scripts"]
    assert DOCKERFILE.index("USER expunge") < DOCKERFILE.index("ENTRYPOINT")


def test_the_devcontainer_makes_what_the_makefile_makes():
    said = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    (target,) = re.findall(r"^make (\w+)$", said["postCreateCommand"])
    makefile = (ROOT / "Makefile").read_text()
    assert f"\n{target}:" in makefile and "VENV ?= .venv" in makefile
    assert said["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(".venv/bin/python")
