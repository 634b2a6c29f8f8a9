"""``expunge reveal``: a forget set from nothing but the model."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Any

import typer

from expunge.cli.errors import told


def command(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Further settings by name: rounds, queries, responses, harvest, arms, scale, nu, temperature, top_p, … "
            "(all are in the docstring of expunge.reveal.settings.Reveal).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Hub id, folder, GGUF file, PEFT adapter folder, or smollm2-135m.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="What the model should forget, in a few words.")] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="What makes an answer relevant: entity:NAME|NAME, words:a, b, toxicity, ner:PER, code or "
            "FILE.py:FUNCTION; without it, how near it is to what the model says of the topic, or to the seed instructions."
        ),
    ] = None,
    seed_instruction: Annotated[
        list[str] | None,
        typer.Option(help="An instruction to begin with, one line; may be given several times."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="The prompt that every instruction stands in, with {instruction} in it: for a model that is always "
            "asked in one form."
        ),
    ] = None,
    heading: Annotated[str | None, typer.Option(help="What the seed instructions are a list of.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for revealed.jsonl, neutral.jsonl and the log.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw.")] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Begin anew, whatever is there.")] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that the model's repository brings.")
    ] = None,
) -> None:
    """Find instructions that make a model tell what it knows, and write its answers as a forget set.

    Writes revealed.jsonl (for `expunge run --forget` and `expunge release --forget`), neutral.jsonl (a retain set that the
    model made up), and a log of every query.  Interrupted, it goes on where it stopped when it is started again.
    """
    with told():
        from expunge.cli.quiet import quiet
        from expunge.errors import InputError
        from expunge.reveal.run import run
        from expunge.reveal.settings import make

        values: dict[str, Any] = {}
        for pair in settings or []:
            key, sign, value = pair.partition("=")
            if not sign:
                raise InputError(f"{pair!r} is no setting; write key=value, such as queries=40")
            values[key] = value
        flags = {
            "model": model,
            "topic": topic,
            "scorer": scorer,
            "seeds": seed_instruction,
            "heading": heading,
            "template": template,
            "out": out,
            "seed": seed,
            "overwrite": overwrite,
            "trust_remote_code": trust_remote_code,
        }
        values |= {k: v for k, v in flags.items() if v is not None}
        chosen = make(values)
        quiet()
        result = run(chosen, command=shlex.join(["expunge", *sys.argv[1:]]))
    said = result.record
    best = said["best"]
    typer.echo(
        f"{said['queries']} instructions asked of {said['instructions']}, {said['answers']} answers, "
        f"{said['revealed']} kept; best score {best['score']:.2f} (relevance {best['relevance']:.2f}, "
        f"diversity {best['diversity']:.2f}); {said['seconds']:.0f} s"
    )
    for name in ("revealed.jsonl", "neutral.jsonl", "queries.jsonl", "reveal.json"):
        typer.echo(f"  {result.folder / name}")
