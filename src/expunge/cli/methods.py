"""``expunge methods``: the table of methods."""

from __future__ import annotations


def command() -> None:
    """List every method: its paper, its parameters with their defaults, its status."""
    from rich.console import Console
    from rich.table import Table

    from expunge import methods  # noqa: F401  fills the table
    from expunge.method import METHODS

    table = Table("method", "what it does", "parameters", "paper", "status", box=None, padding=(0, 2, 0, 0))
    for row in METHODS.values():
        defaults = ", ".join(f"{k}={v}" for k, v in row.defaults.items())
        table.add_row(row.name, row.summary, defaults, row.paper, row.status)
    Console().print(table)
