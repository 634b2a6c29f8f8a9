"""``expunge show METHOD``: formula, defaults, paper, and where the source stands."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.options import Json
from expunge.settings import check_filled


def command(
    method: Annotated[str, typer.Argument(help="A name from `expunge methods`, or FILE.py:NAME.")],
    as_json: Json = False,
) -> None:
    """Explain one method: its objectives with their formulas, how they meet, its defaults and its source."""
    check_filled({"method": method}, "the command line")
    page = describe(method)
    if as_json:
        result.print_json({"name": method, "page": page})
    else:
        typer.echo(page)


def describe(name: str) -> str:
    """The page of one method, its formulas in Unicode."""
    from expunge.cli.formulas import for_terminal
    from expunge.method import entry

    row = entry(name)
    parts = ["    ".join(filter(None, (row.name, row.paper, row.status)))]
    for title, text, values in sections(name):
        body = for_terminal(text)
        shown = "\n".join(f"  {key} = {value}" for key, value in values.items())
        parts.append(
            "\n".join(filter(None, (title, _indent(body) if title else body))) + (f"\n{shown}" if shown else "")
        )
    return "\n\n".join([*parts, f"source: {row.source}"])


def markdown(name: str) -> str:
    """The same as Markdown, its formulas in LaTeX."""
    from expunge.cli.formulas import for_markdown

    parts = []
    for title, text, values in sections(name):
        shown = "\n".join(f"{key} = {value}" for key, value in values.items())
        parts += [f"**{title}**" if title else "", for_markdown(text), f"```text\n{shown}\n```" if shown else ""]
    return "\n\n".join(filter(None, parts))


def sections(name: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Title, docstring and values of each part of a method: itself, its objectives, its combiner, its optimizer."""
    import dataclasses

    from expunge import sophia
    from expunge.method import entry

    row = entry(name)
    made = row.make()
    parts: list[tuple[str, str, Mapping[str, Any]]] = [
        ("", inspect.getdoc(inspect.unwrap(row.make)) or "", {}),
        ("parameters", "", row.defaults),
    ]
    for role, objective in made.objectives.items():
        title = f"{role} objective: {objective.name}({', '.join(objective.on)})"
        parts.append((title, inspect.getdoc(objective.function) or "", {}))
    parts.append((f"combiner: {made.combine!r}", inspect.getdoc(type(made.combine)) or "", {}))
    if made.optimizer:
        parts.append(("optimizer: Sophia", inspect.getdoc(sophia) or "", dataclasses.asdict(made.optimizer)))
    return [part for part in parts if part[1] or part[2]]


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())
