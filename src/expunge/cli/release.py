"""``expunge release``: unlearn by many small negated task vectors, from flags or from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet, from_settings
from expunge.cli.unexpected import writes_to

NOT_OFFERED = ("method", "optimizer", "adapter", "quantize", "trainable", "holdout", "as_published")


@from_settings("expunge.release.settings.Release", "expunge.unlearning.settings.Recipe", leave_out=NOT_OFFERED)
def command(
    given: dict[str, Any],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.toml|.yaml] [KEY=VALUE]...",
            help="A recipe, then settings over it: any of these options by name, a recipe key of `expunge run`, lora.KEY, "
            "or any field of transformers.TrainingArguments for the modules (num_train_epochs=1).",
            show_default=False,
        ),
    ] = None,
    merge: Annotated[
        bool | None, typer.Option("--merge", help="Write whole weights in place of one LoRA adapter.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Make a model forget step by step: train a LoRA on the forget set, subtract a part of it, look, repeat.

    Writes run.json, model/ (one LoRA adapter, or whole weights), steps/ (an interrupted run goes on from them when it is
    called again) and report.html with the trajectory.
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge.release import settings as release
        from expunge.settings import recipe_first

        values, pairs, where = recipe_first(settings, release.read_file, "the release")
        flags = given | ({} if merge is None else {"merge": merge})
        chosen = release.make(release.override(values | flags, pairs), where)
        from expunge.cli.quiet import quiet as hush
        from expunge.release import planned, run

        hush()
        writes_to(chosen.run.out)
        plan = planned(chosen) if dry_run else None
        done = None if dry_run else run(chosen, command=result.command_line())
    if plan:
        result.show_plan({"command": "release", **plan}, as_json=as_json)
    elif done:
        log = done.record
        value = log | {"out": str(done.folder)}
        result.show(
            value, lambda: _print_result(log, done.folder), as_json=as_json, quiet=quiet, warnings=log["warnings"]
        )


def _print_result(log: dict[str, Any], folder: Path) -> None:
    """The trajectory as a table, what was kept and why, and what was written."""
    from rich.console import Console
    from rich.table import Table

    from expunge.report import trajectory
    from expunge.report.run_page import summary

    found = trajectory.table(log)
    if found:
        table = Table("step", *found.columns, box=None, padding=(0, 2, 0, 0))
        for row in found.rows:
            table.add_row(row.name, *row.cells)
        Console().print(table)
    for sentence in trajectory.sentences(log):
        typer.echo(sentence)
    typer.echo(summary(log))
    result.files(folder, "run.json", "model", "report.html")
