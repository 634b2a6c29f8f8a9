"""run.json: the one record that a run writes and everything else reads.

A record is a plain dict; ``write`` names its keys.  It is written in one piece or not at all, as strict JSON:
a run that dies leaves no half-written file, and no NaN that another parser refuses. Needs no torch, so a
record can be read and re-reported on any laptop.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.files import PathLike, replace_text

SCHEMA = 1
FILE = "run.json"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "tokenizers", "safetensors")


def write(record: Mapping[str, Any], path: PathLike) -> Path:
    """Write a record to ``path`` (the file, or the folder that holds ``run.json``) and return the file.

    NaN and infinities become null.  Keys: ``schema, expunge, created, command, title, method, model, output,
    data, training, seed, versions, platform, device, steps, tokens, before, after, reference, reference_name,
    examples, seconds, peak_memory_bytes, warnings``; ``schema`` is set here.  Raises TypeError if a value
    cannot be said in JSON; an earlier file then stays as it was.
    """
    text = json.dumps(_strict({**record, "schema": SCHEMA}), indent=1, ensure_ascii=False, allow_nan=False)
    return replace_text(_file(path), text + "\n")


def read(path: PathLike) -> dict[str, Any]:
    """The record at ``path``, a ``run.json`` or the folder that holds one.

    Raises InputError if there is none, if it is no JSON (with the line), or if its schema is not known here.
    """
    file = _file(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{file}: there is no record; give a run's output folder or its {FILE}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: the record is not UTF-8 text; give a {FILE} that expunge wrote.") from None
    try:
        record = json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        where = f"{file}, line {error.lineno}, column {error.colno}"
        raise InputError(f"{where}: the record is not valid JSON ({error.msg}); restore or rerun it.") from None
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA or isinstance(schema, bool):
        said = "names no schema" if schema is None else f"has schema {schema!r}"
        raise InputError(
            f"{file}: the record {said}, this expunge reads schema {SCHEMA}; use the version that wrote it."
        )
    result: dict[str, Any] = record
    return result


def renamed(command: str | None, names: Mapping[str, str]) -> str | None:
    """``command`` fit to be published: ``names`` in place of the paths they stand for, and of any other absolute path
    its last part.  Without names it stays as it was typed.

    >>> renamed("expunge run --model /home/me/target --out=/tmp/it", {"/home/me/target": "TinyTarget"})
    'expunge run --model TinyTarget --out=it'
    """
    if not command or not names:
        return command
    words = []
    for word in shlex.split(command):
        head, sign, tail = word.partition("=")
        key, value = (head + sign, tail) if sign and os.sep not in head else ("", word)
        short = os.path.basename(os.path.normpath(value)) if os.path.isabs(value) else value
        words.append(key + names.get(value, short))
    return shlex.join(words)


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that figures depend on; imports none of them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_bytes() -> int | None:
    """The most main memory this process has held, in bytes; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024  # macOS counts bytes, Linux kB


def _file(path: PathLike) -> Path:
    """The record's file for a path that names the file or its folder; a name that ends in .json is a file."""
    given = Path(path)
    return given if given.is_file() or (given.suffix == ".json" and not given.is_dir()) else given / FILE


def _strict(value: Any) -> Any:
    """The value as JSON can say it: NaN as None, tuples as lists, numpy scalars and paths as plain values."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch scalar
        return _strict(value.item())
    return value
