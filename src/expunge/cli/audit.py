"""``expunge audit``: is it gone, is the rest still there, does it come back?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet, from_settings
from expunge.cli.unexpected import writes_to


@from_settings("expunge.audit.settings.Audit")
def command(
    given: dict[str, Any],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.toml|.yaml] [KEY=VALUE]...",
            help="A recipe, then settings over it: any of these options by name.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Audit a model that was made to forget: is it gone, is the rest still there, does it come back?

    Writes audit.json (verdict, figures, intervals), report.html, summary.md, junit.xml and evidence/ (what each model said).
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge.audit import settings as audit
        from expunge.settings import recipe_first

        values, pairs, where = recipe_first(settings, audit.read, "the audit")
        chosen = audit.make(audit.override(values, pairs) | given, where)
        from expunge.audit.run import planned, run
        from expunge.cli.quiet import quiet as hush

        hush()
        writes_to(chosen.out)
        plan = planned(chosen) if dry_run else None
        done = None if dry_run else run(chosen, command=result.command_line())
    if plan:
        result.show_plan({"command": "audit", **plan}, as_json=as_json)
    elif done:
        log = done.record
        result.show(
            log | {"out": str(done.folder)},
            lambda: print_result(log, done.folder),
            as_json=as_json,
            quiet=quiet,
            warnings=log["warnings"],
        )
        end(done.word, chosen.fail_unless)


def print_result(log: dict[str, Any], folder: Path | None = None) -> None:
    """The verdict in colour, the answers to the three questions, and the files."""
    from expunge.audit.summary import COLOURS, lines

    verdict = log["verdict"]
    typer.secho(f"Verdict: {verdict['word']}", fg=COLOURS.get(verdict["word"]), bold=True)
    typer.echo(f"  {verdict['sentence']}")
    for line in lines(log):
        typer.echo(f"  {line}")
    if verdict["not_concluded"]:
        typer.echo(f"  not concluded: {len(verdict['not_concluded'])} things, listed in the report")
    if folder is not None:
        result.files(folder, "audit.json", "report.html", "summary.md", "junit.xml")


def end(word: str, wanted: str | None) -> None:
    """Exit with 1 where the verdict is not what ``--fail-unless`` wants."""
    from expunge.audit.verdict import reached

    if not reached(word, wanted):
        typer.secho(f"expunge: the verdict is {word}, and --fail-unless wants {wanted}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1)
