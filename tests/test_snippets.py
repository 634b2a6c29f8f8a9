"""README and site: every command is one, every snippet runs as it stands, every link into the repository leads somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import snippets
import yaml
from launch import PATH
from snippets import PAGES, ROOT

BLOCKS = {str(page.relative_to(ROOT)): snippets.blocks(page) for page in PAGES}
COMMANDS = [
    (name, part) for name, found in BLOCKS.items() for b in found for c in b.commands for part in snippets.split(c)
]
WRITTEN = ["README.md", "docs/start.md", "docs/deletion-request.md", "docs/concepts/one-idea.md",
           *(name for name in BLOCKS if name.startswith("docs/tutorials/"))]  # fmt: skip
SEVERAL = [c for b in BLOCKS["docs/processes.md"] if b.mark == "processes" for c in b.commands]
PROGRAMS = {
    "expunge": "expunge",
    "accelerate": "accelerate.commands.accelerate_cli",
    "torchrun": "torch.distributed.run",
}


@pytest.fixture
def place(workplace, monkeypatch):
    """A folder with a tiny model, rows, what the demo leaves, the results; training takes two steps of PDU on the CPU."""
    import shutil

    import expunge.training.arguments
    from expunge.audit import measure
    from expunge.demo.show import INPUTS
    from expunge.method import METHODS
    from expunge.unlearning.settings import Recipe

    suited = expunge.training.arguments.defaults
    short = {"max_steps": 2, "use_cpu": True, "disable_tqdm": True}
    monkeypatch.setattr(expunge.training.arguments, "defaults", lambda *a, **k: suited(*a, **k) | short)
    rows = measure.general_rows()[:2]
    monkeypatch.setattr(measure, "general_rows", lambda: rows)
    for key, value in (
        ("method", "pdu"),
        ("eval_rows", 4),
        ("max_new_tokens", 6),
    ):  # a tiny model knows no row: the default method would refuse
        monkeypatch.setattr(Recipe.model_fields[key], "default", value)
    Recipe.model_rebuild(force=True)
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    (workplace / "results").symlink_to(ROOT / "results")
    inputs = workplace / "expunge-demo" / "inputs"
    inputs.mkdir(parents=True)
    for name in INPUTS[:2]:
        shutil.copyfile(workplace / name, inputs / name)
    known = dict(METHODS)
    yield workplace
    METHODS.clear()
    METHODS.update(known)
    monkeypatch.undo()
    Recipe.model_rebuild(force=True)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_page_is_marked_with_what_there_is(name):
    marks = re.findall(r"<!-- snippet: ([^>]*) -->", (ROOT / name).read_text())
    assert len(marks) == sum(b.mark is not None for b in BLOCKS[name]), "a mark stands right above its block"
    assert {b.mark for b in BLOCKS[name]} <= snippets.MARKS


def test_every_command_on_every_page_is_one():
    assert len(COMMANDS) > 60
    wrong = []
    for name, words in COMMANDS:
        if (rest := snippets.program(words)) is not None:
            wrong.append((name, snippets.parsed(rest)))
        elif words[0] in snippets.READY:
            wrong.append((name, snippets.ready(words)))
    assert [w for w in wrong if w[1]] == []


@pytest.mark.parametrize(
    "words", [["run", "--modle", "m"], ["rnu"], ["guard", "ask", "--modle", "m"], ["report", "--out"]]
)
def test_a_command_that_is_none_is_noticed(words):
    assert snippets.parsed(words)


def test_a_reader_can_type_what_the_written_pages_say():
    for name in WRITTEN:
        assert BLOCKS[name], name
        for block in BLOCKS[name]:
            if block.mark is None:
                assert block.title or block.kind in ("console", "python", "text"), f"{name}: {block.kind}"


def carried_out(name: str, place: Path, slow: bool) -> None:
    """All blocks of a page in their order; without ``slow`` those that are not marked so."""
    names: dict[str, object] = {}
    for i, block in enumerate(BLOCKS[name]):
        if block.mark is None or (slow and block.mark == "slow"):
            snippets.run(block, place, names, f"{name} block {i}")


@pytest.mark.parametrize("name", [n for n in WRITTEN if n != "docs/deletion-request.md"])
def test_a_page(name, place):
    carried_out(name, place, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in WRITTEN if n == "docs/deletion-request.md" or any(b.mark == "slow" for b in BLOCKS[n])]
)
def test_a_page_with_what_is_slow(name, place):
    carried_out(name, place, slow=True)


def test_the_readme_counts_what_there_is():
    from expunge.benchmarks import BENCHMARKS
    from expunge.method import entries

    text = BLOCKS and (ROOT / "README.md").read_text()
    assert f"[{len(entries())} methods]" in text
    assert len({name.split("/")[0] for name in BENCHMARKS}) == 9 and "[Nine benchmarks]" in text


def test_links_into_the_repository_lead_somewhere():
    found = [
        (name, m[1])
        for name in BLOCKS
        for m in re.finditer(r"expunge/expunge/(?:blob|tree)/main/([^)#\s\"]+)", (ROOT / name).read_text())
    ]
    assert len(found) > 30
    assert [(name, path) for name, path in found if not (ROOT / path).exists()] == []


def test_links_of_the_readme_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text()):
            assert (ROOT / link).exists(), f"{name}: {link}"


def test_every_page_has_its_place_in_the_navigation():
    def places(node):
        return (
            [node]
            if isinstance(node, str)
            else [p for n in (node.values() if isinstance(node, dict) else node) for p in places(n)]
        )

    listed = places(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(p.relative_to(ROOT / "docs")) for p in PAGES if ROOT / "docs" in p.parents)


@pytest.mark.slow
@pytest.mark.parametrize("words", SEVERAL, ids=[f"{c[0]}-{i}" for i, c in enumerate(SEVERAL)])
def test_several_processes(words, workplace):
    """What the page on several GPUs says, as it is written, on the CPU."""
    for name in ("recipes", "examples"):
        (workplace / name).symlink_to(ROOT / name)
    first, *rest = words
    training = "run" in rest
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "MASTER_"))}
    env |= {"PYTHONPATH": os.pathsep.join(PATH), "CUDA_VISIBLE_DEVICES": "", "EXPUNGE_CACHE": str(workplace / "cache")}
    typed = [sys.executable, "-m", PROGRAMS[first], *rest, *(["max_steps=2", "disable_tqdm=true"] if training else [])]
    done = subprocess.run(typed, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = workplace / (rest[rest.index("--out") + 1] if training else "figures")
    assert (folder / ("run.json" if training else "figures.json")).exists()
    assert done.stdout.count("report.html") == 1
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_there_are_commands_for_several_processes():
    assert {c[0] for c in SEVERAL} == set(PROGRAMS) and shlex.join(SEVERAL[0]).startswith("expunge run --processes 2")
