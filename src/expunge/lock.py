"""A lock file in a folder: one process at a time.

The system's own file lock (flock) decides, so a killed process leaves no lock behind; where a file system has no
such lock, the process ID and the host in the file decide.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.errors import InputError

FILE = ".expunge.lock"
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}
WRITING = 10.0  # seconds that a process may take to write its name into a new lock file


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    file: Path
    descriptor: int


def acquire(folder: Path) -> Lock:
    """Lock ``folder``; raises InputError, at once, if another process holds it, and OSError where no file can be written."""
    file = folder / FILE
    for _ in range(100):
        new = True
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            new = False
            try:
                descriptor = os.open(file, os.O_RDWR)
            except FileNotFoundError:
                continue  # released in between
        try:
            if _locked(descriptor, file, new=new):
                _write(descriptor, pid=os.getpid(), host=socket.gethostname(), started=_now())
                return Lock(file, descriptor)
        except BaseException:
            os.close(descriptor)
            if new:
                file.unlink(missing_ok=True)
            raise
        os.close(descriptor)
    raise InputError(f"{folder}: another run begins or ends here; try again, or choose another output folder")


def release(lock: Lock, *, keep: bool) -> None:
    """Unlock; with ``keep`` the file stays and marks the folder as an unfinished result of expunge."""
    with contextlib.suppress(OSError):  # the folder may be gone, the disk full
        if keep:
            _write(lock.descriptor, unfinished=True)
        else:
            lock.file.unlink()
    os.close(lock.descriptor)


def is_left(folder: Path) -> bool:
    """Whether a process that worked in ``folder`` left it unfinished, or is at work there."""
    return (folder / FILE).is_file()


def _locked(descriptor: int, file: Path, *, new: bool) -> bool:
    """Whether this process has the lock now; False: try again."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(file, _owner(file)) from None
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNSUPPORTED:
            raise
        return new or _taken_over(file)
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))  # else its holder removed it in between
    except FileNotFoundError:
        return False


def _taken_over(file: Path) -> bool:
    """Without flock: raise InputError if the process in the file is alive, else delete the file."""
    owner = _owner(file)
    with contextlib.suppress(FileNotFoundError):
        if owner is None and time.time() - file.stat().st_mtime < WRITING:
            raise _in_use(file, None)
        if owner and not owner.get("unfinished") and _alive(owner):
            raise _in_use(file, owner)
        stale = file.with_name(f"{FILE}.{uuid.uuid4().hex[:12]}")
        os.rename(file, stale)  # of two processes one can
        stale.unlink()
    return False


def _alive(owner: dict[str, Any]) -> bool:
    """Whether the process is alive; one on another host is taken to be."""
    if os.name == "nt" or owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _in_use(file: Path, owner: dict[str, Any] | None) -> InputError:
    process = (
        f" (process {owner['pid']} on {owner.get('host')}, since {owner.get('started')})"
        if owner and "pid" in owner
        else ""
    )
    return InputError(
        f"{file.parent}: another run is writing into this folder{process}; wait for it, or choose another output folder "
        f"(if no such run is alive, remove {file})"
    )


def _owner(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write(descriptor: int, **fields: Any) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, (json.dumps(fields) + "\n").encode())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
