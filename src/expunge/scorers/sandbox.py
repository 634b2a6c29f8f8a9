"""Running Python that a model wrote, in a process of its own with limits.

It keeps accidents in: endless loops, memory, forks, floods, a stray ``os.remove``.  **It is no security boundary against a
determined attacker**: the code runs on your kernel, under your user.  For code you have reason to fear, use a container or
a virtual machine without secrets, and run the whole evaluation there.

Contained everywhere (Linux, macOS): time, CPU time, the size of a file it writes (16 MiB each), open files (64), its
environment (empty), its imports (the standard library only), and children that it leaves behind in its process group.
macOS does not enforce the memory limit.

Contained where Linux lets an ordinary user make namespaces (most distributions; not in many containers): the network (the
process has none), other processes (it can signal only its own, and none outlives it), and writing (the whole
file system is read-only, but for the working folder).  Where it does not: Python's socket class cannot connect, bind or
send, which code that means to can get round; a child that makes a session of its own lives on; and the code may write and
delete wherever you may.

Contained where bwrap (bubblewrap) is installed and works: reading.  The code sees the system's libraries, this Python and
its own folder.  Without bwrap: the code can read every file that you can, ``/proc`` with its list of processes too, and
print it.  Nor *sockets that are files*: where namespaces are to be had, it can talk to any service of this machine that
listens on one and lets its user in (Docker's, a desktop's, an agent's of keys).

The number of processes is at most 32 (threads count).  Linux counts only the sandbox's own where namespaces are to be
had; elsewhere the user's whole number, so that code can start none at all.  For root there is no such limit: run as root,
the sandbox becomes the user nobody if that one can read the Python installation; if not, it uses bwrap, and without that it
stays root and says so on standard error.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from expunge.errors import InputError
from expunge.scorers import bubblewrap

MIB = 1 << 20
LEAST_MEMORY = 64 * MIB  # Python itself needs about half of it
STDOUT, STDERR = 1 << 16, 1 << 13  # bytes that are read back
CONFINE = Path(__file__).with_name("confine.py")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``ok`` is exit status 0 in time; ``error_last_line`` is the last line of its error output, or how it
    ended if it wrote none, "" if ok; ``stdout`` holds its first 64 KiB."""

    ok: bool
    timed_out: bool
    error_last_line: str
    stdout: str


def run(source: str, *, stdin: str = "", seconds: float = 5, memory: int = 512 * MIB) -> Outcome:
    """Run the Python program ``source`` on ``stdin``, for at most ``seconds``, in at most ``memory`` bytes a process.

    It runs under this interpreter, alone (``-I -S``: no site-packages), in a new folder that is deleted afterwards.  The
    start-up, a tenth of a second, counts as its time.  What is contained is listed above.  Raises InputError on
    Windows and for invalid limits; whatever the program does is an Outcome.

    >>> run("print(input()[::-1])", stdin="abc").stdout
    'cba\\n'
    """
    check_system()
    _warn_of_root()
    if not 0 < seconds < float("inf"):
        raise InputError(f"the time limit must be a number of seconds above 0, not {seconds}")
    if memory < LEAST_MEMORY:
        raise InputError(f"the memory limit must be {LEAST_MEMORY} bytes (64 MiB) or more, not {memory}")
    with (
        tempfile.TemporaryDirectory(prefix="expunge-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as stdin_file,
        tempfile.TemporaryFile() as stdout_file,
        tempfile.TemporaryFile() as stderr_file,
    ):
        Path(folder, "main.py").write_bytes(source.encode("utf-8", "replace"))
        stdin_file.write(stdin.encode("utf-8", "replace"))
        stdin_file.seek(0)
        process = subprocess.Popen(
            [
                *bubblewrap.command(folder, CONFINE),
                *(sys.executable, "-I", "-S", "-B", str(CONFINE), folder, str(seconds), str(memory)),
            ],
            stdin=stdin_file,
            stdout=stdout_file,
            stderr=stderr_file,
            env={"TMPDIR": folder},
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the group's last one is a zombie
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Outcome(status == 0, status is None, _error(status, _tail(stderr_file), seconds), _head(stdout_file))


@cache
def _warn_of_root() -> None:
    """Warn once if the code runs as root."""
    if warning := bubblewrap.root_warning():
        print(f"expunge: warning: {warning}", file=sys.stderr)


def check_system() -> None:
    """InputError if the system has no process limits."""
    if os.name != "posix":
        raise InputError("running code that a model wrote needs Linux or macOS; on Windows use WSL or a container")


def _error(status: int | None, written: str, seconds: float) -> str:
    if status == 0:
        return ""
    if status is None:
        return f"ran longer than {seconds:g} s"
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    if lines:
        return lines[-1]
    number = -status if status < 0 else status - 128  # of the signal: this process' own child says it so, a shell so
    return f"ended by signal {number}" if 0 < number <= 64 else f"exit status {status}"


def _head(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(STDOUT).decode("utf-8", "replace")


def _tail(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - STDERR))
    return file.read(STDERR).decode("utf-8", "replace")
