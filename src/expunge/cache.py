"""The user's cache: what it holds, how large and how old, and taking away what is old or too much.

``scores/KEY`` holds what a model answered to a benchmark, so texts of the forget set too: files of mode 600 in folders of
mode 700.  ``models/NAME`` holds dequantised copies of GGUF files.  An entry's age counts from its last use.  Where a process
uses an entry it holds a lock on ``.NAME.lock`` beside it, and nothing takes the entry away until that process ends.
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
_HELD: dict[Path, IO[str]] = {}


@dataclass(frozen=True)
class Entry:
    """One folder of the cache; ``used``: when last, in seconds since 1970; ``busy``: whether a process uses it."""

    folder: Path
    kind: str
    what: str
    size: int
    used: float
    busy: bool

    @property
    def age(self) -> float:
        """Seconds since the last use."""
        return max(0.0, time.time() - self.used)


# -- use ------------------------------------------------------------------------------------------------------------------
def hold(folder: Path) -> None:
    """Keep the entry ``folder`` from being taken away until this process ends, and note that it was used now.

    Raises OSError where the cache cannot be written to.
    """
    if folder not in _HELD:
        files.private_folder(folder.parent)
        stream = open(_lock_of(folder), "a", encoding="utf-8")  # noqa: SIM115  open to the process' end
        _locked(stream, shared=True)
        _HELD[folder] = stream
    if folder.is_dir():
        os.utime(folder)


def describe(folder: Path, about: Mapping[str, Any]) -> None:
    """Note beside an entry's files what they are of, for :func:`entries`."""
    files.write_json(folder / ABOUT, about, mode=files.PRIVATE)


def unusable(error: OSError) -> str:
    """How a message says that the cache cannot be written to."""
    return f"the cache {files.cache_folder()} cannot be written to ({files.reason(error)})"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _locked(stream: IO[str], *, shared: bool) -> bool:
    """Whether the lock could be had at once; a system without such locks gives it to everybody."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# -- what is there --------------------------------------------------------------------------------------------------------
def entries() -> list[Entry]:
    """Everything in the cache, the entry that was used last first."""
    found = []
    for kind in KINDS:
        with suppress(OSError):
            for folder in (files.cache_folder() / kind).iterdir():
                if folder.is_dir():
                    found.append(_entry(folder, kind))
    return sorted(found, key=lambda e: -e.used)


def _entry(folder: Path, kind: str) -> Entry:
    sizes = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # it may go away meanwhile
            sizes.append(file.stat().st_size)
    busy = folder in _HELD or not _free(folder)
    return Entry(folder, kind, _what(folder, kind), sum(sizes), folder.stat().st_mtime, busy)


def _what(folder: Path, kind: str) -> str:
    if folder.name.startswith("."):
        return "unfinished, of a process that was ended"
    with suppress(OSError, ValueError):
        said = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return f"{KINDS[kind]} {said['model']} to {said['questions']} questions"
    return f"{KINDS[kind]} {'a model' if kind == 'scores' else folder.name}"


def _free(folder: Path) -> bool:
    """Whether no process holds the entry."""
    lock = _lock_of(folder)
    if not lock.exists():
        return True
    with open(lock, "a", encoding="utf-8") as stream:
        return _locked(stream, shared=False)


# -- taking away ----------------------------------------------------------------------------------------------------------
def excess(found: Sequence[Entry], *, older_than: float | None = None, keep: int | None = None) -> list[Entry]:
    """The entries that go: those not used for ``older_than`` seconds, then the oldest until ``keep`` bytes are left.

    One that a process uses stays, whatever its age, and counts.
    """
    idle = [e for e in found if not e.busy]
    gone = [e for e in idle if older_than is not None and e.age > older_than]
    left = sum(e.size for e in found) - sum(e.size for e in gone)
    for entry in sorted(idle, key=lambda e: e.used):
        if keep is not None and left > keep and entry not in gone:
            gone.append(entry)
            left -= entry.size
    return gone


def remove(chosen: Sequence[Entry]) -> list[Entry]:
    """Take ``chosen`` away, but for those that a process has begun to use meanwhile; returns what is gone."""
    return [entry for entry in chosen if _removed(entry.folder)]


def _removed(folder: Path) -> bool:
    if folder in _HELD:
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
    """Hold the cache to its limits, those of :data:`LIMITS` or of the environment; a sentence on what was taken away."""
    age, size = (os.environ.get(name) or usual for name, usual in LIMITS.items())
    gone = remove(excess(entries(), older_than=seconds(age), keep=number_of_bytes(size)))
    if not gone:
        return None
    size_gone = size_words(sum(e.size for e in gone))
    return (
        f"the cache gave up {len(gone)} of its entries, {size_gone}, not used for {age} or above {size} in all; "
        f"`expunge cache` lists what is left, and {AGE} and {SIZE} set the limits"
    )


# -- ages and sizes in words ----------------------------------------------------------------------------------------------
def seconds(text: str) -> float:
    """An age such as ``30d``, ``12h`` or ``2w``; a bare number is days.

    >>> seconds("30d"), seconds("12h"), seconds("1")
    (2592000.0, 43200.0, 86400.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([hdw]?)[a-z]*\s*", text.lower())
    if not found:
        raise InputError(f"{text!r} is no age; write 30d, 12h or 2w")
    return float(found[1]) * {"h": DAY / 24, "d": DAY, "w": 7 * DAY, "": DAY}[found[2]]


def number_of_bytes(text: str) -> int:
    """A size such as ``5GB`` or ``500 MB``; GiB counts as GB does.

    >>> number_of_bytes("5GB"), number_of_bytes("1.5 kb"), number_of_bytes("0")
    (5000000000, 1500, 0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?\s*", text.upper())
    if not found:
        raise InputError(f"{text!r} is no size; write 5GB or 500MB")
    return int(float(found[1]) * UNITS[f"{found[2]}B"])


def size_words(size: int) -> str:
    """A number of bytes as people write it.

    >>> size_words(5), size_words(1_500_000)
    ('5 B', '1.5 MB')
    """
    name, unit = max(((n, u) for n, u in UNITS.items() if u <= max(size, 1)), key=lambda pair: pair[1])
    return f"{size} B" if unit == 1 else f"{size / unit:.1f} {name}"


def age_words(age: float) -> str:
    """An age as people write it.

    >>> age_words(5), age_words(7200), age_words(3 * DAY)
    ('now', '2 h', '3 d')
    """
    return f"{age / DAY:.0f} d" if age >= DAY else f"{age / 3600:.0f} h" if age >= 1800 else "now"


def lines(found: Sequence[Entry]) -> Iterator[str]:
    """The entries for a person, one a line."""
    for e in found:
        yield f"{size_words(e.size):>9}  {age_words(e.age):>5}  {e.what}{'  (in use)' if e.busy else ''}"
