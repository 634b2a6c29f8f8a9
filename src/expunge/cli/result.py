"""What a command prints in the end: for a person, as one JSON object, as a plan, or nothing."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from expunge import processes
from expunge.cli import warned

TOKENS = ("--hub-token", "--token", "hub_token")  # options whose value is a secret


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["expunge", *without_token(sys.argv[1:])])


def without_token(typed: Iterable[str]) -> list[str]:
    """The words of a command with ``…`` in place of a token for the Hub.

    >>> without_token(["run", "--hub-token", "hf_a", "hub_token=hf_b", "--token=hf_c"])
    ['run', '--hub-token', '…', 'hub_token=…', '--token=…']
    """
    words: list[str] = []
    for word in typed:
        name, sign, _ = word.partition("=")
        if words and words[-1] in TOKENS:
            word = "…"
        words.append(f"{name}=…" if sign and name in TOKENS else word)
    return words


def show(
    value: Mapping[str, Any],
    say: Callable[[], None],
    *,
    as_json: bool,
    quiet: bool,
    warnings: Iterable[str] = (),
) -> None:
    """Print ``value`` as JSON, or call ``say`` to print it for a person; then ``warnings``, and what was logged, on
    standard error.

    As JSON they are its ``warnings`` too.  Of several processes the main one prints.
    """
    if not processes.is_main():
        return
    if as_json:
        print_json({**value, "warnings": warned.unique(warnings)})
    elif not quiet:
        say()
    warned.print_all(warnings)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output; NaN and infinities are null."""
    from expunge.files import strict

    typer.echo(json.dumps(strict(value), ensure_ascii=True, allow_nan=False, default=str))


def show_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    """What a command would do: model, rows of each set, method, steps, folder."""
    if not processes.is_main():
        return
    if as_json:
        print_json({"dry_run": True, **plan})
        return
    for name, value in plan.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{n} {name}" for name, n in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        typer.echo(f"{name:<10} {'none' if value is None else value}")
    typer.echo("Nothing was written.")


def files(folder: str | Path, *names: str) -> None:
    """The files that were written."""
    for name in names:
        typer.echo(f"  {Path(folder) / name}")
