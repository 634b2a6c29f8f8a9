"""``--processes N``: a command that starts itself several times, unless a launcher did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from expunge import processes
from expunge.cli.unexpected import typed


def several(wanted: int | None, training: Mapping[str, Any]) -> None:
    """Where ``wanted`` processes are to be started: start them, wait for them, and end with their exit code.

    In each of them, and where one is wanted, nothing happens.  Raises InputError where a launcher started another number,
    or this machine has too few GPUs.
    """
    if wanted is None or wanted == processes.count():
        return
    if processes.count() > 1:
        processes.check_count(wanted)
    from expunge import launch

    launch.check(wanted, cpu=str(training.get("use_cpu", False)).lower() == "true")
    raise typer.Exit(launch.start(typed(), wanted))
