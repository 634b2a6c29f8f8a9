"""``expunge methods``: the table of methods."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from expunge.cli import result
from expunge.cli.options import Json


def command(as_json: Json = False) -> None:
    """List every method: its paper, the rows it needs, its parameters with their defaults, its status."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from expunge import plugins
    from expunge.errors import InputError
    from expunge.method import entries, entry

    broken = []
    for name in plugins.names("method"):
        try:
            entry(name)  # it registers itself
        except InputError as error:
            broken.append(str(error))
    if as_json:
        keys = ("name", "summary", "paper", "status", "defaults", "streams")
        result.print_json({"methods": [{key: getattr(row, key) for key in keys} for row in entries().values()]})
        for sentence in broken:
            typer.echo(sentence, err=True)
        return
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    for row in entries().values():
        about = Text(row.summary.replace("``", ""))
        if row.streams:
            about.append(f"\nneeds {needs(row.streams)}")
        if row.defaults:
            about.append("\n" + ", ".join(f"{k}={v}" for k, v in row.defaults.items()), style="dim")
        table.add_row(row.name, about, "\n".join(filter(None, (row.paper, row.status))))
    console = Console()
    console.print(table)
    for sentence in broken:
        console.print(sentence, style="red", markup=False)
    console.print("expunge show METHOD: formula, defaults and source of one.")


def needs(streams: Sequence[str]) -> str:
    """Which rows a method needs, in words.

    >>> needs(("forget", "retain")), needs(("forget",)), needs(("forget", "alternate", "retain"))
    ('a forget and a retain set', 'a forget set alone', 'a forget and a retain set, and other answers to the forget rows')
    """
    sets = "a forget and a retain set" if "retain" in streams else "a forget set alone"
    return sets + (", and other answers to the forget rows" if "alternate" in streams else "")
