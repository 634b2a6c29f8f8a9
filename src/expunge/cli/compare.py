"""``expunge compare``: several methods on one data set with equal budgets, and one trade-off figure."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import asking
from expunge.cli.errors import told


def command(
    recipe: Annotated[
        str, typer.Argument(help="A recipe (.toml) with a benchmark and a table [methods.NAME] for each.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings over it: seeds=0,1,2, methods.NAME.KEY, any of these options by name, or what `expunge run` "
            "takes (max_steps=20).",
            show_default=False,
        ),
    ] = None,
    model: asking.Model = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder for compare.json, the figure, report.html and all runs.  [default: comparison]"),
    ] = None,
    forget_figure: Annotated[
        str | None, typer.Option(help="The forget figure to draw, as part/name (forget/rouge_l_recall).")
    ] = None,
    utility_figure: Annotated[
        str | None, typer.Option(help="The utility figure to draw, as part/name (retain/probability).")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="none|adapters|all", help="Which unlearned weights stay on disk.  [default: adapters]"),
    ] = None,
    adapter: asking.AnAdapter = None,
    data: asking.Data = None,
    retrained: asking.Retrained = None,
    model_name: asking.ModelName = None,
    data_name: asking.DataName = None,
    retrained_name: asking.RetrainedName = None,
    limit: asking.Limit = None,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
    chat_template: asking.ChatTemplate = None,
    backend: asking.Backend = None,
    trust_remote_code: asking.TrustRemoteCode = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Make runs again that are there with other settings.")
    ] = None,
) -> None:
    """Run several methods with equal budgets, measure each alike, and draw forget against utility.

    An interrupted command goes on: runs that are there with the same settings are not repeated.  A method that fails is
    recorded, the others go on, and the exit code is 1.
    """
    flags = {k: v for k, v in locals().items() if k not in ("recipe", "settings") and v is not None}
    with told():
        asking.need_extra()
        from expunge import compare

        values = compare.override(compare.read_file(recipe) | flags, settings or [])
        chosen = compare.make(values, recipe)
        from expunge.cli.quiet import quiet

        quiet()
        said = compare.run(chosen, command=shlex.join(["expunge", *sys.argv[1:]]), tell=typer.echo)
    _say(said, chosen.out)
    if any(not r["done"] for r in said["runs"]):
        raise typer.Exit(1)


def _say(said: Mapping[str, Any], folder: str) -> None:
    """The runs as a table, what failed, and what was written."""
    from rich.console import Console
    from rich.table import Table

    from expunge.report import compare_page as compared

    utility, forget = compared.names(said)
    table = Table("run", "seed", forget, "", utility, "", box=None, padding=(0, 2, 0, 0))
    for row in compared.lines(said):
        (a, a_within), (b, b_within) = row.cells[:2]
        table.add_row(row.name, row.seed, a, a_within, b, b_within)
    Console().print(table)
    for r in said["runs"]:
        if not r["done"]:
            typer.secho(f"  {r['name']} failed: {r['said']}", fg=typer.colors.RED, err=True)
    typer.echo(compared.summary(said))
    for name in ("compare.json", "tradeoff.svg", "tradeoff.png", "report.html"):
        typer.echo(f"  {Path(folder) / name}")
