"""Records: run.json, which a run writes and everything else reads, the schema of all, and defaults for older ones.

A record is a plain dict; ``write`` names its keys.  It is written in one piece or not at all, as strict JSON:
a run that dies leaves no half-written file, and no NaN that another parser refuses. Needs no torch, so a
record can be read and its report written on any laptop.
"""

from __future__ import annotations

import functools
import math
import os
import platform
import shlex
import sys
import types
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from expunge import files
from expunge.errors import InputError
from expunge.files import PathLike
from expunge.outputs import Layout

Record = TypeVar("Record")
SCHEMA = 1
FILE = "run.json"
LAYOUT = Layout(
    FILE,
    f"an earlier run's {FILE} is here",
    entries=(
        "run.json",
        "run.previous.json",
        "report.html",
        "model/",
        "checkpoints/",
        "unfinished/",
        "alternates.json",
        "self_retain.json",
        "steps/",
        "made.json",
        "audit/",
    ),
    evidence=(
        "made.json",
        "alternates.json",
        "self_retain.json",
        "steps/[0-9]*.json",
        "*/checkpoint-*/trainer_state.json",
    ),
)
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "tokenizers", "safetensors")


def write(record: Mapping[str, Any], path: PathLike) -> Path:
    """Write a record to ``path`` (the file, or the folder that holds ``run.json``) and return the file.

    NaN and infinities become null.  Keys: ``schema, expunge, created, command, title, method, model, parent,
    output, data, training, seed, versions, platform, device, steps, tokens, before, after, reference, reference_name,
    examples, seconds, parts, peak_memory_bytes, warnings``; ``schema`` is set here.  Raises TypeError if a value
    cannot be written as JSON; an earlier file then stays as it was.
    """
    file = _file(path)
    return files.write_json(
        file, as_written(record, file.parent), mode=files.PRIVATE if record.get("examples") else files.ORDINARY
    )


def as_written(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``record`` as it is written into ``folder``: with ``schema``, and ``private_files`` where there are any."""
    quoted = private_files(record, folder)
    return {**record, "schema": SCHEMA, **({"private_files": quoted} if quoted else {})}


def private_files(record: Mapping[str, Any], folder: Path) -> list[str]:
    """The files in a run's ``folder`` that quote forget data or a model's answers to it; for its owner alone (mode 600)."""
    quoted = [FILE, "report.html"] if record.get("examples") else []
    return [*quoted, *(name for name in ("alternates.json", "self_retain.json", "steps/") if (folder / name).exists())]


def read(path: PathLike) -> dict[str, Any]:
    """The record at ``path``, a ``run.json`` or the folder that holds one.

    Raises InputError if there is none, if it is no JSON (with the line), or if its schema is not known here.
    """
    file = _file(path)
    record = files.read_json(
        file, description="record", remedy=f"give a run's output folder or its {FILE}, whole as expunge wrote it."
    )
    return check_schema(record, file)


def check_schema(record: dict[str, Any], file: Path, *, unnamed: int | None = None) -> dict[str, Any]:
    """``record`` as it is; raises InputError if its schema is not known here.

    ``unnamed``: the schema of a record that names none, where such were written before.
    """
    schema = record.get("schema", unnamed)
    if schema != SCHEMA or isinstance(schema, bool):
        problem = "names no schema" if schema is None else f"has schema {schema!r}"
        raise InputError(
            f"{file}: the record {problem}, this expunge reads schema {SCHEMA}; use the version that wrote it."
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
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    versions_by_package = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions_by_package[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions_by_package


def peak_memory_bytes() -> int | None:
    """The peak of this process' main memory, in bytes; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024  # macOS counts bytes, Linux kB


def _file(path: PathLike) -> Path:
    """The record's file for a path that names the file or its folder; a name that ends in .json is a file."""
    file_or_folder = Path(path)
    return (
        file_or_folder
        if file_or_folder.is_file() or (file_or_folder.suffix == ".json" and not file_or_folder.is_dir())
        else file_or_folder / FILE
    )


# -- records of older versions --------------------------------------------------------------------------------------------
def complete(schema: type[Record], record: Any) -> Record:
    """``record`` with every key of the TypedDict ``schema``, nested ones too: a value that is missing or of another type
    is None or empty, a number that is not finite is None.  A complete record is returned as it is.

    >>> from expunge.record_types import ModelFacts
    >>> complete(ModelFacts, {"source": "model", "other": 1})
    {'source': 'model', 'fingerprint': None}
    """
    if isinstance(record, _Complete) and record.schema is schema:
        return cast("Record", record)
    values = record if isinstance(record, Mapping) else {}
    completed = _Complete({key: _completed(hint, values.get(key)) for key, hint in _keys(schema).items()})
    completed.schema = schema
    return cast("Record", completed)


class _Complete(dict[str, Any]):
    """The return value of :func:`complete`, marked so that no part of a page completes it again."""

    schema: type


def _completed(hint: Any, value: Any) -> Any:
    """``value``, completed, if it has the type ``hint``; else None or empty."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (hint,) = (member for member in arguments if member is not type(None))
        missing = value is None or (_is_mapping(hint) and not isinstance(value, Mapping))
        return None if missing else _completed(hint, value)
    if is_typeddict(hint):
        return complete(hint, value)
    if origin is dict:
        return {k: _completed(arguments[1], v) for k, v in value.items()} if isinstance(value, Mapping) else {}
    if origin is list:
        items = value if isinstance(value, list | tuple) else ()
        return [_completed(arguments[0], v) for v in items if isinstance(v, Mapping) or not _is_mapping(arguments[0])]
    return _plain(hint, value)


def _plain(hint: Any, value: Any) -> Any:
    if hint is bool:
        return value if isinstance(value, bool) else None
    if hint in (int, float):
        return (
            value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
        )
    if hint is str:
        return value if value is None or isinstance(value, str) else str(value)
    return value


def _is_mapping(hint: Any) -> bool:
    return is_typeddict(hint) or get_origin(hint) is dict


_HINTS: dict[type, dict[str, Any]] = {}


def _keys(schema: type) -> dict[str, Any]:
    if schema not in _HINTS:
        _HINTS[schema] = get_type_hints(schema)  # without NotRequired
    return _HINTS[schema]
