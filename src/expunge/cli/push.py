"""``expunge push RUN --to user/name``: an unlearned model with its card on the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet
from expunge.settings import check_filled


def command(
    run: Annotated[str, typer.Argument(help="The folder of a run or a release.")],
    to: Annotated[str, typer.Option("--to", help="user/name, or a name under your own account.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Whether a new repository is private; else as your account has it."),
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", "--hub-token", help="Token that may write, if not that of `hf auth login`.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="The branch that it goes to.")] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", help="The model before, as it is called on the Hub, where that was a folder."),
    ] = None,
    message: Annotated[str | None, typer.Option("--message", help="The commit's message.")] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a model there that expunge did not push; the Hub keeps its history."),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Push an unlearned model to the Hugging Face Hub, with a model card that says how it was unlearned and audited.

    Only weights, tokenizer and settings of the model go there, and the card: no rows, no record, no report.
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge.hub.push import Push, plan, push_to_hub

        given = {
            "run": run,
            "to": to,
            "token": token,
            "revision": revision,
            "base_model": base_model,
            "message": message,
        }
        check_filled(given, "the command line")
        where = Push(to, private, token, revision, base_model, message, overwrite)
        found: dict[str, Any] = plan(run, where) if dry_run else push_to_hub(run, where)
    if dry_run:
        result.show_plan({"command": "push", **found}, as_json=as_json)
        return
    result.show(found, lambda: _print(found), as_json=as_json, quiet=quiet)


def _print(found: dict[str, Any]) -> None:
    typer.echo(f"pushed {len(found['files'])} files to {found['url']}")
    for name in found["left_out"]:
        typer.echo(f"  not pushed: {name}")
