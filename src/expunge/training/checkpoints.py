"""Checkpoints: what one must hold so that training goes on from it exactly, and the combiner's state in it.

The combiner's state (of primal-dual unlearning the multiplier λ, the budget and the steps so far) is optimizer state:
``combiner.json`` lies beside the weights of each checkpoint and is read from the checkpoint that is named, wherever the
run writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge import files
from expunge.combine import Combiner, complete
from expunge.errors import InputError
from expunge.training import manifest, moments

COMBINER_FILE = "combiner.json"
STATE_FILE = "expunge.json"  # what the trainer knows besides, and what the run adds
STATE, OPTIMIZER = "trainer_state.json", "optimizer.pt"
DEEPSPEED = "global_step*"  # its folder of shards


def located(named: Any, folder: str | Path | None) -> Path | None:
    """The checkpoint that ``resume_from_checkpoint`` names: a path, or "true" for the newest in ``folder``; None for none.

    Raises InputError where there is none.
    """
    text = str(named).strip()
    if not named or text.lower() in ("false", "none", ""):
        return None
    if text.lower() != "true":
        return files.expanded(text)
    newest = next((p for p in manifest.numbered(Path(folder)) if not manifest.is_torn(p)), None) if folder else None
    if newest is None:
        raise InputError(
            f"resume_from_checkpoint=true: there is no checkpoint in {folder}; name a checkpoint's folder, or leave it out"
        )
    return newest


def check(place: Path, combiner: Any) -> None:
    """Raise InputError where ``place`` lacks what training with ``combiner`` needs to go on as if never interrupted."""
    other = "resume from another checkpoint, or leave resume_from_checkpoint out"
    if not (place / STATE).is_file():
        raise InputError(f"{place} is no checkpoint, for it has no {STATE}; {other}")
    files.read_json(place / STATE, description="checkpoint's state", remedy=other)
    if not has_optimizer(place):
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


def has_optimizer(place: Path) -> bool:
    """Whether ``place`` holds the optimizer's state: transformers' file, that of a run in shards, or DeepSpeed's folder."""
    return (place / OPTIMIZER).is_file() or moments.exists(place) or any(place.glob(DEEPSPEED))


def processes_of(place: Path) -> int:
    """How many processes saved ``place``: each its random states."""
    return max(1, sum(1 for _ in place.glob("rng_state_*.pth")))


def state_of(place: Path) -> dict[str, Any]:
    """What ``expunge.json`` of a checkpoint says; nothing where it has none, as older ones."""
    if not (place / STATE_FILE).exists():
        return {}
    return files.read_json(
        place / STATE_FILE, description="checkpoint's state", remedy="resume from another checkpoint, or use --fresh"
    )


def restore(combiner: Combiner, place: Path) -> None:
    """Give ``combiner`` the state that the checkpoint ``place`` holds; raises InputError as :func:`check`."""
    check(place, combiner)
    if combiner.state_dict():
        combiner.load_state_dict(files.read_json(place / COMBINER_FILE, description="combiner's state", remedy=""))
