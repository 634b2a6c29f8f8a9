"""``expunge release``: unlearn by many small negated task vectors, from flags or from a recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli.errors import told


def command(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.toml] [KEY=VALUE]...",
            help="A recipe, then settings over it: any of these options by name, a recipe key of `expunge run`, lora.KEY, "
            "or any field of transformers.TrainingArguments for the modules (num_train_epochs=1).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Hub id, folder, GGUF file, PEFT adapter folder, or smollm2-135m.")
    ] = None,
    forget: Annotated[
        str | None, typer.Option(help="Forget set: JSONL, JSON, CSV, Parquet, folder or hub name.")
    ] = None,
    retain: Annotated[str | None, typer.Option(help="Retain set: what must stay.")] = None,
    self_retain: Annotated[
        int | None, typer.Option(metavar="N", help="No retain set: N neutral rows that the model writes itself.")
    ] = None,
    utility: Annotated[
        str | None, typer.Option(help="Rows of text on which the model's own perplexity is watched.")
    ] = None,
    utility_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|none",
            help="By which share the watched loss may rise (of --utility the perplexity, else of the retain set the nll); "
            "the last step inside is kept.  [default: 0.05]",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps at most.  [default: 5]")] = None,
    forget_coefficient: Annotated[
        float | None, typer.Option(help="How much of a step's forget module is subtracted.  [default: 0.3]")
    ] = None,
    retain_coefficient: Annotated[
        float | None,
        typer.Option(help="How much of a step's retain module is added; 0 trains none.  [default: 0.1]"),
    ] = None,
    orthogonality: Annotated[
        float | None, typer.Option(help="Weight of the penalty between the two modules.  [default: 0.5]")
    ] = None,
    rank: Annotated[
        str | None,
        typer.Option(
            metavar="R|none",
            help="Rank of the adapter that is saved; none keeps the sum of all modules' ranks, which is exact.  "
            "[default: none]",
        ),
    ] = None,
    merge: Annotated[
        bool | None, typer.Option("--merge", help="Write whole weights in place of one LoRA adapter.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for run.json, model/, steps/ and report.html.")] = None,
    examples: Annotated[
        int | None,
        typer.Option(help="Rows of each set to answer and SHOW in record, steps and report; 0 shows no text."),
    ] = None,
    eval_rows: Annotated[int | None, typer.Option(help="Rows of each set for the figures of each step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the modules and of the order of the data.")] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Write over an earlier run in the folder.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that the model's repository brings.")
    ] = None,
) -> None:
    """Make a model forget step by step: train a LoRA on the forget set, subtract a part of it, look, repeat.

    Writes run.json, model/ (one LoRA adapter, or whole weights), steps/ (an interrupted run goes on from them when it is
    called again) and report.html with the trajectory.
    """
    given = {k: v for k, v in locals().items() if k != "settings" and v is not None}
    with told():
        from expunge.release import settings as whole

        pairs = list(settings or [])
        values: dict[str, Any] = {}
        where = "the release"
        if pairs and "=" not in pairs[0]:
            where = pairs.pop(0)
            values = whole.read_file(where)
        chosen = whole.make(whole.override(values | given, pairs), where)
        from expunge.cli.quiet import quiet
        from expunge.release import run

        quiet()
        result = run(chosen, command=shlex.join(["expunge", *sys.argv[1:]]))
    _say(result.record, result.folder)


def _say(log: dict[str, Any], folder: Path) -> None:
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
    for name in ("run.json", "model", "report.html"):
        typer.echo(f"  {folder / name}")
