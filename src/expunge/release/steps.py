"""The steps of a release on disk, from which an interrupted one resumes.

``steps/NN.safetensors`` holds the update of step NN as LoRA factors, ``NN.json`` its figures and the
settings that decide it; the JSON is written last, so a step with one is complete.  Step 0 is the target before the first
update.
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
FIELDS = ("index", "figures", "answers", "penalty", "seconds", "optimizer_steps", "log", "warnings")


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
    """The updates of the steps, in order."""
    return [s.update for s in past if s.update is not None]


def write(step: Step, folder: Path, key: Mapping[str, Any]) -> None:
    """Write ``step``; ``key``: the settings that decide it."""
    from safetensors.torch import save_file

    record: dict[str, Any] = {k: v for k, v in asdict(replace(step, update=None)).items() if k in FIELDS} | {
        "made_of": key
    }
    if step.update is not None:
        weights = folder / f"{step.index:02d}.safetensors"
        save_file(dict(step.update.state), weights, metadata={"format": "pt"})
        record |= {"config": dict(step.update.config), "weights": files.sha256_file(weights)}
    record |= {"schema": SCHEMA, "figures": _map_figures(step.figures, _to_json)}
    files.write_json(folder / f"{step.index:02d}.json", record, mode=files.PRIVATE)


def read(folder: Path, key: Mapping[str, Any]) -> list[Step]:
    """The whole steps in ``folder``, from step 0 on, up to the first that is missing or damaged.

    Raises InputError, which names the difference, if they were made with another ``key``.
    """
    complete: list[Step] = []
    while (record := _read_record(folder / f"{len(complete):02d}.json")) is not None:
        if differences := sorted(_differences(record["made_of"], json.loads(json.dumps(key)))):
            raise InputError(
                f"{folder} holds the steps of a release with another {', '.join(differences)}; choose another output "
                "folder, or discard them with --overwrite (overwrite=True)"
            )
        update = _update(folder / f"{len(complete):02d}.safetensors", record) if complete else None
        if complete and update is None:
            break
        of_step = {k: record[k] for k in FIELDS} | {"figures": _map_figures(record["figures"], _from_json)}
        complete.append(Step(update=update, **of_step))
    return complete


def discard(folder: Path) -> None:
    """Remove the files of ``write`` and ``write_rows``, and no others."""
    for pattern in ("[0-9][0-9]*.json", "[0-9][0-9]*.safetensors", ROWS):
        for file in folder.glob(pattern):
            file.unlink()


def write_rows(rows: Sequence[Row], file: Path) -> None:
    """``rows`` as JSONL that :func:`expunge.data.sources.load_rows` reads back."""
    files.write_lines(file, map(to_record, rows), mode=files.PRIVATE)


def _read_record(file: Path) -> dict[str, Any] | None:
    """The record in ``file``; None if it is missing or damaged."""
    try:
        record = files.read_json(file, description="step", remedy="discard the steps with --overwrite")
    except InputError:
        return None
    return check_schema(record, file, unnamed=1) if {"made_of", *FIELDS} <= set(record) else None


def _map_figures(figures: Mapping[str, Mapping[str, Any]], change: Callable[[Any], Any]) -> dict[str, dict[str, Any]]:
    return {part: {name: change(value) for name, value in of_part.items()} for part, of_part in figures.items()}


def _to_json(value: float) -> float | str:
    """A figure as strict JSON that is read back exactly: NaN and infinity, with which the budget is compared, as words."""
    return value if math.isfinite(value) else str(float(value))


def _from_json(value: float | str | None) -> float:
    return math.nan if value is None else float(value) if isinstance(value, str) else value


def _update(weights: Path, record: Mapping[str, Any]) -> Adapter | None:
    """The update, None if the file is not the one that the JSON was written for."""
    from safetensors.torch import load_file

    if not weights.is_file() or files.sha256_file(weights) != record.get("weights"):
        return None
    return Adapter(load_file(weights), record["config"])


def _differences(a: Any, b: Any, name: str = "settings") -> set[str]:
    """The names under which two nested dicts differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {difference for k in {*a, *b} for difference in _differences(a.get(k), b.get(k), str(k))}
    return set() if a == b else {name}
