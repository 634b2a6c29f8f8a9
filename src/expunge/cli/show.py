"""``expunge show METHOD``: formula, defaults, paper, and where the source stands."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import result
from expunge.cli.errors import told
from expunge.cli.options import Json


def command(
    method: Annotated[str, typer.Argument(help="A name from `expunge methods`.")], as_json: Json = False
) -> None:
    """Explain one method: its objectives with their formulas, how they meet, its defaults and its source."""
    with told():
        page = describe(method)
        if as_json:
            result.print_json({"name": method, "page": page})
        else:
            typer.echo(page)


def describe(name: str) -> str:
    """The page of one method."""
    import dataclasses
    import inspect

    from expunge import methods, sophia  # noqa: F401  methods fills the table
    from expunge.method import build, entry

    row = entry(name)
    made = build(name)
    maker = inspect.unwrap(row.make)
    parts = [f"{name}    {row.paper}    {row.status}", inspect.getdoc(maker) or ""]
    parts.append("parameters\n" + "\n".join(f"  {k} = {v}" for k, v in row.defaults.items()))
    for role, objective in made.objectives.items():
        loss = getattr(objective.loss, "func", objective.loss)
        streams = ", ".join(objective.on)
        parts.append(f"{role} objective: {loss.__name__}({streams})\n{_indent(inspect.getdoc(loss) or '')}")
    parts.append(f"combiner: {made.combine!r}\n{_indent(inspect.getdoc(type(made.combine)) or '')}")
    if made.optimizer:
        told = "\n".join(f"  {key} = {value}" for key, value in dataclasses.asdict(made.optimizer).items())
        parts.append(f"optimizer: Sophia\n{_indent(inspect.getdoc(sophia) or '')}\n\n{told}")
    parts.append(f"source: {inspect.getsourcefile(maker)}:{inspect.getsourcelines(maker)[1]}")
    return "\n\n".join(parts)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())
