"""What a model wrote for a run, kept in a file beside it, so that a run that is resumed reads the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from expunge import files, record
from expunge.errors import InputError


def once(file: Path, name: str, key: Mapping[str, Any], write: Callable[[], list[Any]]) -> list[Any]:
    """The list ``name`` in ``file``, if it is of the same ``key`` (what it was made of); else what ``write`` gives, which
    is then in the file, for its owner alone (mode 600).
    """
    kept = _read(file, name, key)
    if kept is None:
        kept = write()
        files.write_json(file, {"schema": record.SCHEMA, "made_of": dict(key), name: kept}, mode=files.PRIVATE)
    return kept


def _read(file: Path, name: str, key: Mapping[str, Any]) -> list[Any] | None:
    """The list in ``file``; None if there is none, or it is of something else."""
    try:
        said = files.read_json(file, description=f"file of {name}", remedy="remove it, and they are generated again")
    except InputError:
        return None
    record.check_schema(said, file, unnamed=1)
    return said[name] if said.get("made_of") == key else None
