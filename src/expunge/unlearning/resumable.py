"""A training that is a part of a command: it saves checkpoints on the way, and the same command goes on from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.method import Method
from expunge.unlearning import train, unfinished
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Ended:
    """A training that ended: its trainer, the ``seconds`` that it took in earlier parts, and ``problem``: of its checkpoints
    that could not be written.
    """

    trainer: Any
    seconds: float
    problem: str | None


def train_resumable(
    net: Any,
    tokenizer: Any,
    data: Data,
    method: Method,
    args: Any,
    *,
    folder: Path,
    settings: Recipe,
    decides: Mapping[str, Any],
    fingerprint: str,
    progress: str = "unlearning",
) -> Ended:
    """Train ``net`` in place, with checkpoints in ``folder``/unfinished as often as ``settings.save_every`` says.

    A checkpoint that is there is gone on from, if it is of the same rows, method and arguments, of what else ``decides`` the
    weights, and of the model with this ``fingerprint``.  It stays until :func:`discard`.  Raises InputError as
    :func:`~expunge.unlearning.unfinished.find`.
    """
    unfinished.begin(folder, settings)
    made = unfinished.identity(settings, method, data, args) | {"settings": dict(decides)}
    this = unfinished.Run(made, unfinished.find(folder, made, settings))
    unfinished.check_model(this.unfinished, fingerprint, folder)
    this.known["model"] = fingerprint
    before = sum(part["seconds"] for part in this.parts()[:-1])
    with unfinished.naming_saved_step(folder):
        trainer = train.train(
            net,
            tokenizer,
            data,
            method,
            args,
            plan=unfinished.plan(folder, settings, this),
            begin=this.unfinished.place if this.unfinished else None,
            progress=progress,
        )
    return Ended(trainer, before, trainer.keeper.saved.problem)


def discard(folders: Iterable[Path]) -> None:
    """Remove the checkpoints of trainings whose weights are saved, and the folders that are then empty."""
    for folder in folders:
        unfinished.discard(folder)
        for empty in (folder / "checkpoints", folder):
            with contextlib.suppress(OSError):
                empty.rmdir()
