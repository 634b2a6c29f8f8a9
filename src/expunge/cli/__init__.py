"""The command line: one file a command; nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge import __version__
from expunge.cli import (
    audit,
    bench,
    cache,
    compare,
    demo,
    fingerprint,
    guard,
    methods,
    plan,
    push,
    release,
    report,
    reveal,
    run,
    show,
    tune,
    verify,
)
from expunge.cli.unexpected import App

app = typer.Typer(
    name="expunge",
    cls=App,
    help="Make a language model forget, and prove that it did.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold forget data
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"expunge {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Make a language model forget, and prove that it did."""


app.command("run")(run.command)
app.command("plan")(plan.command)
app.command("reveal")(reveal.command)
app.command("release")(release.command)
app.add_typer(guard.app, name="guard")
app.command("audit")(audit.command)
app.command("certify")(verify.certify)
app.command("verify")(verify.verify)
app.command("push")(push.command)
app.command("methods")(methods.command)
app.command("show")(show.command)
app.command("bench")(bench.bench)
app.command("compare")(compare.command)
app.command("tune")(tune.command)
app.command("report")(report.command)
app.command("rescore")(bench.rescore)
app.command("fingerprint")(fingerprint.command)
app.command("demo")(demo.command)
app.command("cache")(cache.command)
