"""run.json: the one record that a run writes and everything else reads.

A record is a plain dict; ``write`` names its keys.  It is written in one piece or not at all, as strict JSON:
a run that dies leaves no half-written file, and no NaN that another parser refuses. Needs no torch, so a
record can be read and re-reported on any laptop.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from expunge import files
from expunge.errors import InputError
from expunge.files import PathLike

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
    return files.write_json(_file(path), {**record, "schema": SCHEMA})


def check_folder(out: PathLike, *, overwrite: bool = False) -> Path:
    """The folder ``out``; raises InputError if it cannot be a run's, or has an earlier one's record; touches nothing."""
    return files.check_folder(out, marker=FILE, overwrite=overwrite, found=f"an earlier run's {FILE} is here")


def claim_folder(out: PathLike, *, overwrite: bool = False) -> Path:
    """Make ``out`` ready for a run; raises InputError as :func:`check_folder`."""
    return files.claim_folder(check_folder(out, overwrite=overwrite), marker=FILE, overwrite=overwrite)


def read(path: PathLike) -> dict[str, Any]:
    """The record at ``path``, a ``run.json`` or the folder that holds one.

    Raises InputError if there is none, if it is no JSON (with the line), or if its schema is not known here.
    """
    file = _file(path)
    record = files.read_json(
        file, what="record", remedy=f"give a run's output folder or its {FILE}, whole as expunge wrote it."
    )
    return check_schema(record, file)


def check_schema(record: dict[str, Any], file: Path, *, unnamed: int | None = None) -> dict[str, Any]:
    """``record`` as it is; raises InputError if its schema is not known here.

    ``unnamed``: the schema of a record that names none, where such were written before.
    """
    schema = record.get("schema", unnamed)
    if schema != SCHEMA or isinstance(schema, bool):
        what = "names no schema" if schema is None else f"has schema {schema!r}"
        raise InputError(
            f"{file}: the record {what}, this expunge reads schema {SCHEMA}; use the version that wrote it."
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
