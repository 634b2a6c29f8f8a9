"""``expunge tune``: the settings of methods found by many short trials, with equal budgets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.bench import BENCH, need_extra
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet, from_settings
from expunge.cli.unexpected import writes_to

OF_BENCHMARK = ("data", "retrained", "retrained_name")
UNSUPPORTED = ("processes", "title", "examples", "max_new_tokens", "as_published")


@from_settings(
    "expunge.tune.settings.Tune",
    (BENCH, *OF_BENCHMARK),
    "expunge.unlearning.settings.Recipe",
    leave_out=UNSUPPORTED,
)
def command(
    given: dict[str, Any],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.toml|.yaml] [KEY=VALUE]...",
            help="A recipe as `expunge run` takes it, then settings over it: these options by name, search.KEY, or any "
            "field of transformers.TrainingArguments (max_steps=50 is every trial's budget).",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="One of `expunge methods`, or FILE.py:NAME; several --method are tuned with equal budgets."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Find the settings of methods by trials with equal budgets, chosen on one half of the rows and reported on the other.

    Writes tune.json, report.html with the trade-off front, and best-METHOD.toml, which `expunge run` takes as it is.  An
    interrupted command goes on, and so does one with more --trials than before.
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge.tune import study

        study.check_installed()
        from expunge import tune

        values, where = tune.from_words(settings, given, method or [])
        chosen = tune.make(values, where)
        if chosen.benchmark:
            need_extra()
        from expunge.cli.quiet import hush_without_bars
        from expunge.cli.quiet import quiet as hush

        hush()
        writes_to(chosen.out)
        plan = tune.planned(chosen) if dry_run else None
        tell = None if quiet else typer.echo
        said = (
            None if dry_run else tune.run(chosen, command=result.command_line(), tell=tell, prepare=hush_without_bars)
        )
    if plan:
        result.show_plan({"command": "tune", **plan}, as_json=as_json)
    elif said:
        value = {**said, "out": chosen.out}
        result.show(value, lambda: _say(said, chosen.out), as_json=as_json, quiet=quiet, warnings=said["warnings"])
        if not all(m["best"] for m in said["methods"]):
            raise typer.Exit(1)


def _say(said: Mapping[str, Any], folder: str) -> None:
    """The best trials as a table, and what was written."""
    from rich.console import Console
    from rich.table import Table

    from expunge.report import tune_page
    from expunge.tune import describe

    table = Table("best", "score", "chosen by", "forgotten", "retained", box=None, padding=(0, 2, 0, 0))
    for row in tune_page.best_lines(said):
        table.add_row(row.name, *(value for value, _ in row.cells[:4]))
    Console().print(table)
    typer.echo(tune_page.summary(said))
    result.files(folder, *describe.names_of_files(Path(folder), said))
