"""The steps of a release on disk: what an interrupted one goes on from.

``steps/NN.safetensors`` holds the update of step NN as LoRA factors, ``NN.json`` what was measured after it and what
decided it; the JSON comes last, so a step with one is whole.  Step 0 is the target before the first update.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from expunge import files
from expunge.data.example import Row, to_record
from expunge.errors import InputError
from expunge.models.lora import Adapter
from expunge.record import SCHEMA, check_schema

FOLDER = "steps"
ROWS = "retain.jsonl"  # the rows that the model wrote itself
SEEN = ("index", "figures", "answers", "penalty", "seconds", "optimizer_steps", "log", "warnings")


@dataclass(frozen=True)
class Step:
    """One step: its ``update`` (none of step 0), the ``figures`` after it, and how the training went.

    ``penalty``: the orthogonality of the two modules at the end, before λ; ``log``: the trainer's rows of both modules.
    """

    index: int
    figures: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, list[str]] = field(default_factory=dict)
    update: Adapter | None = None
    penalty: float | None = None
    seconds: float = 0.0
    optimizer_steps: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def updates(past: Sequence[Step]) -> list[Adapter]:
    """What the steps added to the weights, in their order."""
    return [s.update for s in past if s.update is not None]


def write(step: Step, folder: Path, key: Mapping[str, Any]) -> None:
    """Write ``step``; ``key`` is what decided it."""
    from safetensors.torch import save_file

    said: dict[str, Any] = {k: v for k, v in asdict(replace(step, update=None)).items() if k in SEEN} | {"made_of": key}
    if step.update is not None:
        weights = folder / f"{step.index:02d}.safetensors"
        save_file(dict(step.update.state), weights, metadata={"format": "pt"})
        said |= {"config": dict(step.update.config), "weights": files.sha256_file(weights)}
    said |= {"schema": SCHEMA, "figures": _mapped(step.figures, _to_json)}
    files.write_json(folder / f"{step.index:02d}.json", said, mode=files.PRIVATE)


def read(folder: Path, key: Mapping[str, Any]) -> list[Step]:
    """The whole steps in ``folder``, from step 0 on, up to the first that is missing or damaged.

    Raises InputError, which names the difference, if they were not made of ``key``, or of more than it says.
    """
    found: list[Step] = []
    while (said := _said(folder / f"{len(found):02d}.json")) is not None:
        if other := sorted(_differing(said["made_of"], json.loads(json.dumps(key)))):
            raise InputError(
                f"{folder} holds the steps of a release with another {', '.join(other)}; choose another output folder, or "
                "discard them with --overwrite (overwrite=True)"
            )
        update = _update(folder / f"{len(found):02d}.safetensors", said) if found else None
        if found and update is None:
            break
        of_step = {k: said[k] for k in SEEN} | {"figures": _mapped(said["figures"], _from_json)}
        found.append(Step(update=update, **of_step))
    return found


def discard(folder: Path) -> None:
    """Take away what ``write`` and ``write_rows`` wrote, and nothing else."""
    for pattern in ("[0-9][0-9]*.json", "[0-9][0-9]*.safetensors", ROWS):
        for file in folder.glob(pattern):
            file.unlink()


def write_rows(rows: Sequence[Row], file: Path) -> None:
    """``rows`` as JSONL that :func:`expunge.data.sources.load_rows` reads back."""
    files.write_lines(file, map(to_record, rows), mode=files.PRIVATE)


def _said(file: Path) -> dict[str, Any] | None:
    """What the JSON says, None if there is none or it is damaged."""
    try:
        said = files.read_json(file, what="step", remedy="discard the steps with --overwrite")
    except InputError:
        return None
    return check_schema(said, file, unnamed=1) if {"made_of", *SEEN} <= set(said) else None


def _mapped(figures: Mapping[str, Mapping[str, Any]], change: Callable[[Any], Any]) -> dict[str, dict[str, Any]]:
    return {part: {name: change(value) for name, value in of_part.items()} for part, of_part in figures.items()}


def _to_json(value: float) -> float | str:
    """A figure as strict JSON that is read back exactly: NaN and infinity, with which the budget is compared, as words."""
    return value if math.isfinite(value) else str(float(value))


def _from_json(value: float | str | None) -> float:
    return math.nan if value is None else float(value) if isinstance(value, str) else value


def _update(weights: Path, said: Mapping[str, Any]) -> Adapter | None:
    """The update, None if the file is not the one that the JSON was written for."""
    from safetensors.torch import load_file

    if not weights.is_file() or files.sha256_file(weights) != said.get("weights"):
        return None
    return Adapter(load_file(weights), said["config"])


def _differing(a: Any, b: Any, name: str = "settings") -> set[str]:
    """The names under which two nested dicts differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {found for k in {*a, *b} for found in _differing(a.get(k), b.get(k), str(k))}
    return set() if a == b else {name}
