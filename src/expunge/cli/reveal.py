"""``expunge reveal``: a forget set from nothing but the model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet, from_settings
from expunge.cli.unexpected import writes_to


@from_settings("expunge.reveal.settings.Reveal")
def command(
    given: dict[str, Any],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Further settings by name: rounds, queries, responses, harvest, arms, scale, nu, temperature, top_p, … "
            "(all are in the docstring of expunge.reveal.settings.Reveal).",
            show_default=False,
        ),
    ] = None,
    seed_instruction: Annotated[
        list[str] | None,
        typer.Option(help="An instruction to begin with, one line; may be given several times."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Find instructions that make a model tell what it knows, and write its answers as a forget set.

    Writes revealed.jsonl (for `expunge run --forget` and `expunge release --forget`), neutral.jsonl (a retain set that the
    model made up), and a log of every query.  Interrupted, it goes on where it stopped when it is started again.
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge.cli.quiet import quiet as hush
        from expunge.reveal.run import planned, run
        from expunge.reveal.settings import make, override

        flags = given | ({"seeds": seed_instruction} if seed_instruction else {})
        chosen = make(override({}, settings or []) | flags)
        hush()
        writes_to(chosen.out)
        plan = planned(chosen) if dry_run else None
        done = None if dry_run else run(chosen, command=result.command_line())
    if plan:
        result.show_plan({"command": "reveal", **plan}, as_json=as_json)
    elif done:
        value = done.record | {"out": str(done.folder)}
        warnings = done.record["warnings"]
        result.show(
            value, lambda: _print_result(done.record, done.folder), as_json=as_json, quiet=quiet, warnings=warnings
        )


def _print_result(said: dict[str, Any], folder: Any) -> None:
    best = said["best"]
    typer.echo(
        f"{said['queries']} instructions asked of {said['instructions']}, {said['answers']} answers, "
        f"{said['revealed']} kept; best score {best['score']:.2f} (relevance {best['relevance']:.2f}, "
        f"diversity {best['diversity']:.2f}); {said['seconds']:.0f} s"
    )
    result.files(folder, "revealed.jsonl", "neutral.jsonl", "queries.jsonl", "reveal.json")
