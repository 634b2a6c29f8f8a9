"""``expunge compare``: several methods on one data set with equal budgets, and one trade-off figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from expunge import files
from expunge.cli import result
from expunge.cli.bench import BENCH, EVALUATION, need_extra
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet, from_settings
from expunge.cli.unexpected import writes_to
from expunge.errors import InputError, nearest

FORMATS = ("csv", "latex", "markdown")
SHARED = ("model", "data", "retrained", "model_name", "data_name", "retrained_name")


@from_settings(
    "expunge.compare.settings.Compare",
    (BENCH, *SHARED),
    EVALUATION,
    ("expunge.unlearning.settings.Recipe", "adapter", "save_every", "fresh"),
)
def command(
    given: dict[str, Any],
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe (.toml, .yaml) with a benchmark and a table [methods.NAME] for each; with --format also the "
            "folder of a finished comparison."
        ),
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
    seed: Annotated[
        int | None, typer.Option(help="Every method runs with this seed; several with seeds=0,1,2.  [default: 0]")
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="csv|latex|markdown",
            help="Print the table of a paper, mean ± sd over seeds, and write it into the folder.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Run several methods with equal budgets, measure each alike, and draw forget against utility.

    An interrupted command goes on: runs that are there with the same settings are not repeated, and one that was broken off
    goes on from its checkpoint.  A method that fails is recorded, the others go on, and the exit code is 1.
    """
    check_format(table)
    if table and is_finished(recipe):
        _print_table(recipe, table)
        return
    with running(as_json=as_json, quiet=quiet):
        need_extra()
        from expunge import compare

        flags = given | ({} if seed is None else {"seeds": [seed]})
        values = compare.override(compare.read_file(recipe) | flags, settings or [])
        chosen = compare.make(values, recipe)
        from expunge.cli.quiet import hush_without_bars
        from expunge.cli.quiet import quiet as hush

        hush()
        writes_to(chosen.out)
        plan = compare.planned(chosen) if dry_run else None
        tell = None if quiet else typer.echo
        said = (
            None
            if dry_run
            else compare.run(chosen, command=result.command_line(), tell=tell, prepare=hush_without_bars)
        )
    if plan:
        result.show_plan({"command": "compare", **plan}, as_json=as_json)
    elif said:
        failures = [f"{r['name']} failed: {r['said']}" for r in said["runs"] if not r["done"]]
        value = {**said, "out": chosen.out}
        warnings = [*said["warnings"], *failures]
        result.show(value, lambda: _print_result(said, chosen.out), as_json=as_json, quiet=quiet, warnings=warnings)
        if table and not as_json:
            _print_table(chosen.out, table)
        if failures:
            raise typer.Exit(1)


def check_format(table: str | None) -> None:
    """Raise InputError for a format that is none."""
    if table is not None and table not in FORMATS:
        raise InputError(f"--format takes {', '.join(FORMATS)}, not {table!r}{nearest(table, FORMATS)}")


def is_finished(place: str) -> bool:
    """Whether ``place`` is the folder of a finished comparison, or its ``compare.json``."""
    path = files.expanded(place)
    return path.name == "compare.json" or (path / "compare.json").is_file()


def _print_table(place: str, table: str) -> None:
    """Print the table of the comparison in ``place``, and write it beside its record."""
    from expunge.record import check_schema
    from expunge.report.compare_table import FORMATS as formats
    from expunge.report.compare_table import NAMES

    path = files.expanded(place)
    file = path if path.name == "compare.json" else path / "compare.json"
    found = files.read_json(file, description="record of a comparison", remedy="give a comparison's folder")
    text = formats[table](check_schema(found, file))
    files.replace_text(file.with_name(NAMES[table]), text)
    typer.echo(text, nl=False)


def _print_result(said: Mapping[str, Any], folder: str) -> None:
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
    result.files(folder, "compare.json", "tradeoff.svg", "tradeoff.png", "tradeoff.pdf", "report.html")
