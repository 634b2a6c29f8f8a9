"""The user's cache: its entries with size and age, and the removal of entries that are old or exceed the limit.

``scores/KEY`` holds a model's answers to a benchmark, which may quote the forget set: files of mode 600 in folders of
mode 700.  ``models/NAME`` holds dequantised copies of GGUF files.  An entry's age counts from its last use.  Where a process
uses an entry it holds a lock on ``.NAME.lock`` beside it, and the entry is not removed until that process ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from expunge import files
from expunge.errors import InputError

KINDS = {"scores": "answers of", "models": "weights of"}
ABOUT = "about.json"
DAY = 86400.0
AGE, SIZE = "EXPUNGE_CACHE_AGE", "EXPUNGE_CACHE_SIZE"  # environment variables with other limits
LIMITS = {AGE: "90d", SIZE: "20GB"}
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_LOCKS: dict[Path, IO[str]] = {}


@dataclass(frozen=True)
class Entry:
    """One folder of the cache; ``used``: when last, in seconds since 1970; ``busy``: whether a process uses it."""

    folder: Path
    kind: str
    description: str
    size: int
    used: float
    busy: bool

    @property
    def age(self) -> float:
        """Seconds since the last use."""
        return max(0.0, time.time() - self.used)


# -- use ------------------------------------------------------------------------------------------------------------------
def hold(folder: Path) -> None:
    """Protect the entry ``folder`` from removal until this process ends, and set its last use to now.

    Raises OSError where the cache cannot be written to.
    """
    if folder not in _LOCKS:
        files.private_folder(folder.parent)
        stream = open(_lock_of(folder), "a", encoding="utf-8")  # noqa: SIM115  open to the process' end
        _locked(stream, shared=True)
        _LOCKS[folder] = stream
    if folder.is_dir():
        os.utime(folder)


def describe(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``about`` (the model, the number of questions) beside an entry's files, for :func:`entries`."""
    files.write_json(folder / ABOUT, about, mode=files.PRIVATE)


def unusable(error: OSError) -> str:
    """The message that the cache cannot be written to."""
    return f"the cache {files.cache_folder()} cannot be written to ({files.reason(error)})"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _locked(stream: IO[str], *, shared: bool) -> bool:
    """Whether the lock was acquired, without waiting; always on a system without flock."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# -- entries --------------------------------------------------------------------------------------------------------------
def entries() -> list[Entry]:
    """All entries of the cache, most recently used first."""
    cached = []
    for kind in KINDS:
        with suppress(OSError):
            for folder in (files.cache_folder() / kind).iterdir():
                if folder.is_dir():
                    cached.append(_entry(folder, kind))
    return sorted(cached, key=lambda e: -e.used)


def _entry(folder: Path, kind: str) -> Entry:
    sizes = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # removed by another process
            sizes.append(file.stat().st_size)
    busy = folder in _LOCKS or not _free(folder)
    return Entry(folder, kind, _description(folder, kind), sum(sizes), folder.stat().st_mtime, busy)


def _description(folder: Path, kind: str) -> str:
    if folder.name.startswith("."):
        return "unfinished, of a process that was ended"
    with suppress(OSError, ValueError):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return f"{KINDS[kind]} {about['model']} to {about['questions']} questions"
    return f"{KINDS[kind]} {'a model' if kind == 'scores' else folder.name}"


def _free(folder: Path) -> bool:
    """Whether no process holds the entry."""
    lock = _lock_of(folder)
    if not lock.exists():
        return True
    with open(lock, "a", encoding="utf-8") as stream:
        return _locked(stream, shared=False)


# -- removal --------------------------------------------------------------------------------------------------------------
def excess(cached: Sequence[Entry], *, older_than: float | None = None, keep: int | None = None) -> list[Entry]:
    """The entries to remove: those not used for ``older_than`` seconds, then the oldest until ``keep`` bytes are left.

    An entry that a process uses is never among them, but counts towards ``keep``.
    """
    idle = [e for e in cached if not e.busy]
    removed = [e for e in idle if older_than is not None and e.age > older_than]
    remaining = sum(e.size for e in cached) - sum(e.size for e in removed)
    for entry in sorted(idle, key=lambda e: e.used):
        if keep is not None and remaining > keep and entry not in removed:
            removed.append(entry)
            remaining -= entry.size
    return removed


def remove(selected: Sequence[Entry]) -> list[Entry]:
    """Remove the entries ``selected``, except those that a process now uses; returns the removed ones."""
    return [entry for entry in selected if _removed(entry.folder)]


def _removed(folder: Path) -> bool:
    if folder in _LOCKS:
        return False
    try:
        with open(_lock_of(folder), "a", encoding="utf-8") as stream:
            if not _locked(stream, shared=False):
                return False
            away = folder.with_name(f".{folder.name.lstrip('.')[:40]}.{uuid.uuid4().hex[:12]}.gone")
            folder.rename(away)
            shutil.rmtree(away, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)
    except OSError:
        return False
    return not away.exists()


def trim() -> str | None:
    """Remove what exceeds :data:`LIMITS` or the limits in the environment; returns a message if entries were removed."""
    age, size = (os.environ.get(name) or usual for name, usual in LIMITS.items())
    removed = remove(excess(entries(), older_than=seconds(age), keep=number_of_bytes(size)))
    if not removed:
        return None
    removed_size = size_words(sum(e.size for e in removed))
    return (
        f"the cache gave up {len(removed)} of its entries, {removed_size}, not used for {age} or above {size} in all; "
        f"`expunge cache` lists what is left, and {AGE} and {SIZE} set the limits"
    )


# -- ages and sizes in words ----------------------------------------------------------------------------------------------
def seconds(text: str) -> float:
    """An age such as ``30d``, ``12h`` or ``2w``; a bare number is days.

    >>> seconds("30d"), seconds("12h"), seconds("1")
    (2592000.0, 43200.0, 86400.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([hdw]?)[a-z]*\s*", text.lower())
    if not match:
        raise InputError(f"{text!r} is no age; write 30d, 12h or 2w")
    return float(match[1]) * {"h": DAY / 24, "d": DAY, "w": 7 * DAY, "": DAY}[match[2]]


def number_of_bytes(text: str) -> int:
    """A size such as ``5GB`` or ``500 MB``; GiB counts as GB does.

    >>> number_of_bytes("5GB"), number_of_bytes("1.5 kb"), number_of_bytes("0")
    (5000000000, 1500, 0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?\s*", text.upper())
    if not match:
        raise InputError(f"{text!r} is no size; write 5GB or 500MB")
    return int(float(match[1]) * UNITS[f"{match[2]}B"])


def size_words(size: int) -> str:
    """A number of bytes in words.

    >>> size_words(5), size_words(1_500_000)
    ('5 B', '1.5 MB')
    """
    name, unit = max(((n, u) for n, u in UNITS.items() if u <= max(size, 1)), key=lambda pair: pair[1])
    return f"{size} B" if unit == 1 else f"{size / unit:.1f} {name}"


def age_words(age: float) -> str:
    """An age in words.

    >>> age_words(5), age_words(7200), age_words(3 * DAY)
    ('now', '2 h', '3 d')
    """
    return f"{age / DAY:.0f} d" if age >= DAY else f"{age / 3600:.0f} h" if age >= 1800 else "now"


def lines(cached: Sequence[Entry]) -> Iterator[str]:
    """The entries as text, one a line."""
    for e in cached:
        yield f"{size_words(e.size):>9}  {age_words(e.age):>5}  {e.description}{'  (in use)' if e.busy else ''}"
