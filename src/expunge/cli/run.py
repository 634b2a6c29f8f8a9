"""``expunge run``: unlearn from flags or from a recipe."""

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
            help="A recipe, then settings over it: a recipe key, method.KEY, optimizer.KEY, lora.KEY, or any "
            "field of transformers.TrainingArguments (learning_rate=1e-4).",
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
    holdout: Annotated[
        str | None,
        typer.Option(help="Text the model never saw: stop once the forget loss is down to what it is there."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="One of `expunge methods`, or FILE.py:NAME; pdu if not given.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="A parameter of the method."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sophia or sophia_published (second order), or adamw: what the training argument optim names; "
            "the method's if not given."
        ),
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="lora trains LoRA factors; without it all weights train.")] = None,
    trainable: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Only weights whose name this is found in train (with lora: get factors)."),
    ] = None,
    merge: Annotated[bool | None, typer.Option("--merge", help="With an adapter: write a merged model.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for run.json, model/ and report.html.")] = None,
    compare_with: Annotated[
        str | None, typer.Option(help="A third model for the figures, such as the retrained one.")
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(help="Rows of each set to answer and SHOW in record and report; 0 shows no text."),
    ] = None,
    eval_rows: Annotated[int | None, typer.Option(help="Rows of each set for the figures before and after.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the data order, the adapter and the refusals.")] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Write over an earlier run in the folder.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that the model's repository brings.")
    ] = None,
) -> None:
    """Make a model forget a set of rows and keep another.

    Writes run.json (what was done, step by step), model/ (loads in transformers or PEFT) and report.html.
    """
    with told():
        from expunge.unlearning import settings as recipe

        flags = {
            "model": model,
            "forget": forget,
            "retain": retain,
            "holdout": holdout,
            "method": method,
            "optimizer": optimizer,
            "adapter": adapter,
            "trainable": trainable,
            "merge": merge,
            "out": out,
            "compare_with": compare_with,
            "examples": examples,
            "eval_rows": eval_rows,
            "seed": seed,
            "overwrite": overwrite,
            "trust_remote_code": trust_remote_code,
        }
        given = list(settings or [])
        values: dict[str, Any] = {}
        where = "the run"
        if given and "=" not in given[0]:
            where = given.pop(0)
            values = recipe.read(where)
        pairs = [f"method.{p}" for p in parameter or []]
        values = recipe.override(values | {k: v for k, v in flags.items() if v is not None}, [*given, *pairs])
        chosen = recipe.make(values, where)
        from expunge.cli.quiet import quiet
        from expunge.unlearning import run as api

        quiet()
        result = api.run(chosen, command=shlex.join(["expunge", *sys.argv[1:]]))
    _say(result.record, result.folder)


def _say(log: dict[str, Any], folder: Path) -> None:
    from expunge.report.run_page import summary

    typer.echo(summary(log))
    for name in ("run.json", "model", "report.html"):
        typer.echo(f"  {folder / name}")
