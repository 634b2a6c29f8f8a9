"""One trial: a run in a folder of its own, measured on both halves of the rows."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge import bench
from expunge.bench.run import SharedResults
from expunge.bench.settings import Bench
from expunge.compare.sweep import in_one_line, release_memory
from expunge.data.example import Row
from expunge.errors import RunFailed
from expunge.evaluation.probe import Probe
from expunge.training import signals
from expunge.tune import on_benchmark, on_rows
from expunge.tune.pruning import Intermediate, Pruned
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Work:
    """What a process needs to carry out a trial; ``known``: what was measured of the target by earlier ones.

    ``rows``: what no message may quote.
    """

    name: str
    settings: Recipe | Bench
    halves: Mapping[str, Sequence[Probe]]
    intermediate: Intermediate | None
    command: str | None
    keep_models: bool
    rows: Mapping[str, Sequence[Row]] = field(repr=False)
    known: SharedResults = field(default_factory=SharedResults, repr=False)


def carry_out(work: Work) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts of a trial for the record, and what was measured of the target.

    ``state`` is finished, pruned or failed; ``broke_down``: of one that failed, whether its settings are to blame.
    """
    began = time.monotonic()
    settings, folder = work.settings, Path(work.settings.out)
    facts: dict[str, Any]
    with signals.caught():
        try:
            measure = on_benchmark.measured if isinstance(settings, Bench) else on_rows.measured
            facts = {"state": "finished", **measure(work)}
        except Pruned as pruned:
            facts = {"state": "pruned", "steps": pruned.step}
        except Exception as error:  # one trial's trouble is not the others'
            facts = {"state": "failed", "said": in_one_line(error, names_of(settings), work.rows)}
            facts["broke_down"] = isinstance(error, RunFailed) and _broke_down(error)
        _remove(folder, facts["state"], work.keep_models)
        release_memory()
    return {**facts, "seconds": time.monotonic() - began}, dict(work.known.measured)


def names_of(settings: Recipe | Bench) -> dict[str, str]:
    """Path -> what is written in its place."""
    return bench.names_of(settings) if isinstance(settings, Bench) else settings.names


def _broke_down(error: RunFailed) -> bool:
    """Whether training came to nothing, rather than the disk."""
    return not error.record or bool(error.record.get("failed"))


def _remove(folder: Path, state: str, keep_models: bool) -> None:
    """Remove the weights of a trial, and of one that did not finish all."""
    if state == "pruned":
        shutil.rmtree(folder, ignore_errors=True)
    for weights in (folder / "model", folder / "run" / "model"):
        if not keep_models or state != "finished":
            with contextlib.suppress(OSError):
                shutil.rmtree(weights)
