"""How many bytes a run will write, from the headers of the model's weights; nothing is loaded."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from expunge.errors import InputError
from expunge.models.locate import adapter_base, resolve

FLOAT32 = 4
MOMENTS = 2  # of Adam, as large as the weights that train
OTHER = 1_000_000  # tokenizer, record and report
MARGIN = 1.02


def written_bytes(
    name: str | os.PathLike[str], *, lora_rank: int | None = None, merge: bool = False, checkpoints: int = 0
) -> int | None:
    """About how much a run on the model ``name`` writes: the weights, and so many ``checkpoints``.

    Whole weights are float32, or with ``lora_rank`` and no ``merge`` only the factors are written.  None where the weights
    are not on this disk.
    """
    shapes = _shapes(name)
    if shapes is None:
        return None
    whole = sum(map(math.prod, shapes))
    factors = sum((lora_rank or 0) * sum(s) for s in shapes if len(s) == 2)
    moving = factors if lora_rank else whole
    saved = whole if merge or not lora_rank else factors
    held = moving * (2 + MOMENTS) * checkpoints  # a checkpoint also has the last good weights
    return round(MARGIN * FLOAT32 * (saved + held)) + OTHER


def _shapes(name: str | os.PathLike[str]) -> list[list[int]] | None:
    """The shapes of a local model's tensors, of an adapter's base for an adapter; None where they cannot be known."""
    try:
        source = resolve(name)
        if source.kind == "adapter":
            source, _ = adapter_base(Path(source.location))
        if source.kind != "folder":
            return None
        found = [_header(file) for file in sorted(Path(source.location).glob("*.safetensors"))]
    except (InputError, OSError, ValueError):
        return None  # loading raises for it
    return [list(tensor["shape"]) for header in found for key, tensor in header.items() if key != "__metadata__"]


def _header(file: Path) -> dict[str, dict[str, list[int]]]:
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError("no safetensors")
        header: dict[str, dict[str, list[int]]] = json.loads(stream.read(length))
    return header
