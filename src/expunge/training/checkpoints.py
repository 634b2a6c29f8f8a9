"""Checkpoints: what one must hold so that training goes on from it exactly, and the combiner's state in it.

The combiner's state (of primal-dual unlearning the multiplier λ, the budget and the steps so far) is optimizer state:
``combiner.json`` lies beside the weights of each checkpoint and is read from the checkpoint that is named, wherever the
run writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from expunge import files
from expunge.combine import Combiner, complete
from expunge.errors import InputError

COMBINER_FILE = "combiner.json"
STATE, OPTIMIZER = "trainer_state.json", "optimizer.pt"
SHARDED = ("optimizer.bin", "optimizer_0", "pytorch_model_fsdp_0", "global_step*")  # of FSDP and DeepSpeed


def located(named: Any, folder: str | Path | None) -> Path | None:
    """The checkpoint that ``resume_from_checkpoint`` names: a path, or "true" for the newest in ``folder``; None for none.

    Raises InputError where there is none.
    """
    text = str(named).strip()
    if not named or text.lower() in ("false", "none", ""):
        return None
    if text.lower() != "true":
        return files.expanded(text)
    newest = get_last_checkpoint(str(folder)) if folder and Path(folder).is_dir() else None
    if newest is None:
        raise InputError(
            f"resume_from_checkpoint=true: there is no checkpoint in {folder}; name a checkpoint's folder, or leave it out"
        )
    return Path(newest)


def check(place: Path, combiner: Any) -> None:
    """Raise InputError where ``place`` lacks what training with ``combiner`` needs to go on as if never interrupted."""
    other = "resume from another checkpoint, or leave resume_from_checkpoint out"
    if not (place / STATE).is_file():
        raise InputError(f"{place} is no checkpoint, for it has no {STATE}; {other}")
    files.read_json(place / STATE, description="checkpoint's state", remedy=other)
    if not _has_optimizer(place):
        raise InputError(
            f"{place} holds no {OPTIMIZER}, the optimizer's state (save_only_model leaves it out); {other}"
        )
    state = complete(combiner).state_dict()
    if not state:
        return
    file = place / COMBINER_FILE
    if not file.is_file():
        raise InputError(
            f"{place} holds no {COMBINER_FILE}, the state of {type(combiner).__name__} (such as the multiplier λ), so "
            f"training would begin anew in part; {other}"
        )
    held = files.read_json(file, description="combiner's state", remedy=other)
    if missing := sorted(state.keys() - held.keys()):
        raise InputError(f"{file} is the state of another combiner, for it has no {missing[0]!r}; {other}")


def _has_optimizer(place: Path) -> bool:
    return (place / OPTIMIZER).is_file() or any(any(place.glob(pattern)) for pattern in SHARDED)


class CombinerCheckpoint(TrainerCallback):
    """Saves the combiner's state beside each checkpoint.  Public hooks only."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the state into the checkpoint that was just saved."""
        if state.is_world_process_zero and (held := self.trainer.combine.state_dict()):
            files.write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMBINER_FILE, held)


def restore(combiner: Combiner, place: Path) -> None:
    """Give ``combiner`` the state that the checkpoint ``place`` holds; raises InputError as :func:`check`."""
    check(place, combiner)
    if combiner.state_dict():
        combiner.load_state_dict(files.read_json(place / COMBINER_FILE, description="combiner's state", remedy=""))
