"""The code blocks of Markdown pages: found, written, typed and executed as a reader would."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r'(?:<!-- snippet: (?P<mark>\w+) -->\n)?^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.M | re.S,
)
MARKS = {None, "slow", "parse", "processes"}
REAL = {"expunge-demo/inputs/target": "model", "expunge-demo/inputs/retrained": "model", "smollm2-135m": "model"}
SHELL = {"ls", "cat", "cp", "mkdir", "mv"}
READY = {".", "python3", "git", "make", "pip", "uv"}  # what a reader does before: checked, not done


@dataclass(frozen=True)
class Block:
    """A fenced block: ``mark`` is what a comment before it says of it, ``title`` the file that it is."""

    kind: str
    text: str
    title: str | None = None
    mark: str | None = None

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a console, in words."""
        if self.kind != "console":
            return []
        lines = re.findall(r"^\$ ((?:.*\\\n)*.*)", self.text, re.M)
        return [shlex.split(line.replace("\\\n", " "), comments=True) for line in lines]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [Block(m["kind"], m["text"], m["title"], m["mark"]) for m in FENCE.finditer(page.read_text())]


def split(words: list[str]) -> Iterator[list[str]]:
    """The commands of a line, without the environment before them and without what a pipe leads to."""
    rest = words[: words.index("|")] if "|" in words else words
    while "&&" in rest:
        at = rest.index("&&")
        yield rest[:at]
        rest = rest[at + 1 :]
    while rest and re.fullmatch(r"[A-Z_]+=\S*", rest[0]):
        rest = rest[1:]
    yield rest


def parsed(words: list[str]) -> str | None:
    """What is wrong with a command of expunge, or None; nothing is run."""
    import typer

    from expunge.cli import app

    group = typer.main.get_command(app)
    context = group.make_context("expunge", [], resilient_parsing=True)
    try:
        name, command, rest = group.resolve_command(context, words)
        while hasattr(command, "commands"):
            context = command.make_context(name, [], resilient_parsing=True)
            name, command, rest = command.resolve_command(context, rest)
        command.make_context(name, list(rest), parent=context)
    except Exception as error:
        return f"{' '.join(words)}: {getattr(error, 'message', None) or error!r}"
    return None


def program(words: list[str]) -> list[str] | None:
    """The words after ``expunge``, also where a launcher starts it; None for another program."""
    if "expunge" in words and (words[0] == "expunge" or words[0] in ("torchrun", "accelerate", "mpirun", "python")):
        return words[words.index("expunge") + 1 :]
    return None


def ready(words: list[str]) -> str | None:
    """What is wrong with a preparation: an extra or a target of make that is not there."""
    if words[0] == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
        return next((f"make {w}" for w in words[1:] if w.isidentifier() and w not in targets), None)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [e for w in words for found in re.findall(r"expunge\[([^\]]*)\]", w) for e in found.split(",")]
    return next((f"no extra {e}" for e in asked if e not in known), None)


def run(block: Block, folder: Path, names: dict[str, Any], where: str) -> None:
    """Write, type or execute one block in ``folder``; raises AssertionError where a reader would see an error."""
    if block.title:
        (folder / block.title).write_text(block.text)
    elif block.kind == "python":
        exec(compile(_tiny(block.text), where, "exec"), names)
    for words in block.commands:
        for part in split(words):
            _typed(part, folder)


def _typed(words: list[str], folder: Path) -> None:
    from typer.testing import CliRunner

    from expunge.cli import app

    if (rest := program(words)) is not None:
        if "--level" in rest and "--method" not in rest:  # see the fixture: its default method has none
            del rest[rest.index("--level") : rest.index("--level") + 2]
        done = CliRunner().invoke(app, [_tiny(w) for w in rest])
        fails = 1 if "--fail-unless" in words else 0  # a tiny model knows nothing, so nothing can be told
        assert done.exit_code in (0, fails), f"$ {' '.join(words)}\n{done.output}\n{done.exception!r}"
    elif words[0] in SHELL:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        assert words[0] in READY, f"nobody knows how to check {' '.join(words)}"


def _tiny(text: str) -> str:
    """``text`` with tiny models in the place of real ones."""
    for real, tiny in REAL.items():
        text = text.replace(real, tiny)
    return text
