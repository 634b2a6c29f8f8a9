"""A folder that is whole or not there: written under a hidden name, flushed to disk, listed with its files' sizes, renamed.

What a killed process or a power cut leaves is a hidden folder, or one whose files are not those of its list.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path

from expunge import files
from expunge.errors import InputError

FILE = "manifest.json"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}  # what a folder cannot be flushed for elsewhere says something else
NUMBERED = re.compile(r"checkpoint-(\d+)")


def hidden(place: Path) -> Path:
    """Where ``place`` is while it is being written."""
    return place.with_name(f".{place.name}.tmp")


def seal(place: Path) -> Path:
    """Give what was written to ``hidden(place)`` its name: from now on it is there after a power cut too.

    What was at ``place`` before is replaced, once the new folder is on the disk.
    """
    fresh = hidden(place)
    sizes = {}
    for file in sorted(p for p in fresh.rglob("*") if p.is_file()):
        _flush(file)
        sizes[file.relative_to(fresh).as_posix()] = file.stat().st_size
    files.write_json(fresh / FILE, {"schema": 1, "files": sizes})
    for folder in {fresh, *(p for p in fresh.rglob("*") if p.is_dir())}:
        _flush(folder)
    if place.exists():
        remove(place)
    os.rename(fresh, place)
    _flush(place.parent)
    return place


def is_whole(place: Path) -> bool:
    """Whether ``place`` has a list of files, and each of them with its size."""
    try:
        listed = files.read_json(place / FILE, description="list of files", remedy="")["files"]
        return all((place / name).stat().st_size == size for name, size in listed.items())
    except (InputError, OSError, KeyError, AttributeError):
        return False


def is_torn(place: Path) -> bool:
    """Whether ``place`` has a list of files that they are not those of; a folder without a list is another program's."""
    return (place / FILE).exists() and not is_whole(place)


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, whole or not, the newest first."""
    with contextlib.suppress(OSError):
        found = [p for p in folder.iterdir() if NUMBERED.fullmatch(p.name) and p.is_dir()]
        return sorted(found, key=step_of, reverse=True)
    return []


def step_of(place: Path) -> int:
    """The optimizer steps that the checkpoint ``place`` was saved after."""
    return int(place.name.rpartition("-")[2])


def remove(place: Path) -> None:
    """Remove a folder of ours; half-removed it is hidden, so nobody takes it for whole."""
    going = place.with_name(f".{place.name}.old")
    shutil.rmtree(going, ignore_errors=True)
    os.rename(place, going)
    shutil.rmtree(going, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left of checkpoints in ``folder``; nobody else may be at work in it."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.name.startswith(".checkpoint-") and entry.suffix in (".tmp", ".old"):
                shutil.rmtree(entry, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or which names a folder has; not every system can do the latter."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno in FULL:
            raise
    finally:
        os.close(descriptor)
