"""Files and folders: claim an output folder, write whole or not at all, fingerprints, the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from expunge.errors import InputError

PathLike: TypeAlias = str | os.PathLike[str]
RECORD = "run.json"
PREVIOUS = "run.previous.json"


def claim_folder(out: PathLike, overwrite: bool = False) -> Path:
    """Make the folder ``out`` ready for a run and return it.

    Raises InputError if it is a file, or if an earlier run's record is in it and ``overwrite`` is false.
    With ``overwrite`` the earlier record is kept as ``run.previous.json``, so that a run that dies half-way
    does not leave the old record beside new weights.
    """
    folder = check_folder(out, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RECORD).exists():
        os.replace(folder / RECORD, folder / PREVIOUS)
    return folder


def check_folder(out: PathLike, overwrite: bool = False) -> Path:
    """The folder ``out``, which may not be there; raises InputError as :func:`claim_folder` and writes nothing."""
    folder = Path(out)
    if any(place.exists() and not place.is_dir() for place in (folder, *folder.parents)):
        raise InputError(f"{folder}: a file of that name is in the way; choose another output folder.")
    if (folder / RECORD).exists() and not overwrite:
        raise InputError(
            f"{folder}: an earlier run's {RECORD} is here; "
            "choose another folder, or allow it with --overwrite (overwrite=True)."
        )
    return folder


def replace_text(file: Path, text: str) -> Path:
    """Write ``text`` to ``file`` in one piece: a temporary file beside it, flushed to disk, then renamed over
    it.

    A lone surrogate, which UTF-8 cannot hold, becomes its backslash escape (what JSON writes for it).
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


@contextmanager
def replacing(folder: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """A new sibling folder to write into; it takes the name ``folder`` when the block ends without an error.

    Readers of ``folder`` see the old content or the new one, never half of it.  With ``keep_existing`` a
    folder that another process finished first is left as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}")
    fresh.mkdir()
    try:
        yield fresh
        if folder.exists() and not keep_existing:
            old = folder.with_name(f"{fresh.name}.old")
            folder.rename(old)
            fresh.rename(folder)
            shutil.rmtree(old)
            return
        try:
            fresh.rename(folder)
        except OSError:  # not empty: another process was first
            if not (keep_existing and folder.is_dir()):
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sha256_file(path: PathLike) -> str:
    """``sha256:<hex>`` of a file's bytes."""
    with open(path, "rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_folder(path: PathLike, pattern: str = "**/*") -> str:
    """``sha256:<hex>`` over the files of a folder that match a glob pattern: sorted names, and each one's
    bytes.

    A name is the path inside the folder, with ``/``; where the folder lies does not matter, a renamed file
    does. Raises InputError if nothing matches.
    """
    folder = Path(path)
    files = {file.relative_to(folder).as_posix(): file for file in folder.glob(pattern) if file.is_file()}
    if not files:
        raise InputError(f"{folder}: no file matches {pattern}; there is nothing to take a fingerprint of.")
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{sha256_file(files[name])}\n".encode())
    return "sha256:" + total.hexdigest()


def cache_folder() -> Path:
    """``$EXPUNGE_CACHE``, else ``$XDG_CACHE_HOME/expunge``, else ``~/.cache/expunge``."""
    if own := os.environ.get("EXPUNGE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "expunge"
