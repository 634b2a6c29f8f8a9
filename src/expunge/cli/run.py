"""``expunge run``: unlearn from flags or from a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from expunge.cli import auditing, result
from expunge.cli.audit import end, print_result
from expunge.cli.errors import running
from expunge.cli.launching import several
from expunge.cli.options import DryRun, Json, Quiet, from_settings
from expunge.cli.plan import memory_plan
from expunge.cli.unexpected import writes_to


@from_settings("expunge.unlearning.settings.Recipe")
def command(
    given: dict[str, Any],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE.toml|.yaml] [KEY=VALUE]...",
            help="A recipe, then settings over it: a recipe key, method.KEY, optimizer.KEY, lora.KEY, or any field of "
            "transformers.TrainingArguments (learning_rate=1e-4; lr, epochs and batch_size for short).",
            show_default=False,
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A parameter of the method."),
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit/--no-audit", help="End with a quick audit of what came out, in audit/.")
    ] = True,
    fail_unless: Annotated[
        str | None,
        typer.Option(
            "--fail-unless", metavar="VERDICT", help="Exit with 1 unless the audit's verdict is forgotten (or partly)."
        ),
    ] = None,
    report_to: Annotated[
        str | None,
        typer.Option(
            "--report-to",
            metavar="NAME,…",
            help="Trackers of every step's figures: wandb, trackio, tensorboard, mlflow, …; their files are in OUT/logs.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Make a model forget a set of rows and keep another.

    Writes run.json (what was done, step by step), model/ (loads in transformers or PEFT), report.html, README.md (a model
    card), and in audit/ a quick audit of what came out.
    """
    with running(as_json=as_json, quiet=quiet):
        from expunge.settings import recipe_first
        from expunge.unlearning import settings as recipe

        values, pairs, where = recipe_first(settings, recipe.read, "the run")
        pairs += [f"method.{p}" for p in parameter or []]
        pairs += [f"report_to={report_to}"] if report_to is not None else []
        chosen = recipe.make(recipe.override(values | given, pairs), where)
        several(chosen.processes, chosen.training)
        from expunge import hub
        from expunge.cli.quiet import quiet as hush
        from expunge.unlearning.ready import planned
        from expunge.unlearning.run import run

        hush()
        writes_to(chosen.out)
        auditing.check(audit, fail_unless, chosen)
        plan = planned(chosen) | memory_plan(chosen, as_json=as_json) if dry_run else None
        done = None if dry_run else run(chosen, command=result.command_line())
        done = done and replace(done, model=None, tokenizer=None)  # so that there is room for the models of the audit
        audited = auditing.after(chosen, done.folder) if done and audit else None
        pushed = hub.after(chosen, done.folder) if done else None
    if plan:
        result.show_plan({"command": "run", **plan}, as_json=as_json)
    elif done:
        log, folder = done.record, done.folder
        value = log | {"out": str(folder)} | ({"audit": audited.value} if audited else {})
        value |= {"pushed": pushed} if pushed else {}
        result.show(
            value,
            lambda: _print_result(log, folder, audited, pushed),
            as_json=as_json,
            quiet=quiet,
            warnings=[*log["warnings"], *(audited.warnings if audited else ())],
        )
        if fail_unless:
            end(audited.word if audited else "cannot be told", fail_unless)


def _print_result(
    log: dict[str, Any], folder: Any, audited: auditing.Audited | None = None, pushed: dict[str, Any] | None = None
) -> None:
    from expunge.report.run_page import summary
    from expunge.unlearning import describe

    typer.echo(summary(log))
    if log["stopped"] and log["stopped"]["sentence"] not in log["warnings"]:
        typer.echo(f"  {log['stopped']['sentence']}")
    for line in describe.sets(log):
        typer.echo(f"  {line}")
    result.files(folder, *(n for n in ("run.json", "model", "report.html", "README.md") if (folder / n).exists()))
    if audited and audited.log:
        print_result(audited.log)
        result.files(folder, "audit/report.html")
    if pushed:
        typer.echo(f"  pushed to {pushed['url']}")
