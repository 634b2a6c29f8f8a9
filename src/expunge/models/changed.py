"""Whether a model's files are as they were, by their sizes and times alone: a fingerprint would read all weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.models.locate import adapter_base, resolve

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def stamps(name: str | os.PathLike[str]) -> dict[str, list[int]]:
    """File -> its size in bytes and time of change in ns, of the weights of the model ``name`` and of an adapter's base.

    Empty where they are not on this disk.
    """
    with contextlib.suppress(InputError, OSError):
        source = resolve(name)
        place = Path(source.location)
        files = [p for pattern in WEIGHTS for p in place.glob(pattern)] if place.is_dir() else [place]
        found = {str(p): [p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(files) if p.is_file()}
        base = stamps(adapter_base(place)[0].location) if source.kind == "adapter" else {}
        return base | found
    return {}


def changed(before: Mapping[str, Any] | None, name: str | os.PathLike[str]) -> str | None:
    """The first file of the model ``name`` that is another than when :func:`stamps` gave ``before``; None where none is.

    None, too, where nothing is known, or the files are in another folder now.
    """
    now = stamps(name)
    if not before or not now or before.keys().isdisjoint(now):
        return None
    return next((file for file in sorted({*before, *now}) if before.get(file) != now.get(file)), None)
