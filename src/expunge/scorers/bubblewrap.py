"""bwrap (bubblewrap) around the sandbox, if it is installed and works; and a warning for root without it.

Under bwrap the code sees the system's libraries, this Python and its own folder, and no other file: your home, ``/tmp`` and
``/proc`` of other processes cannot be read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
NOBODY = "65534"


def command(folder: str, *files: Path) -> list[str]:
    """The prefix of the sandbox's command that runs it under bwrap with ``folder`` writable; [] without bwrap.

    ``files``: further files that it must read.  Root becomes nobody if that user can run this Python, which limits more than
    bwrap as root does, so bwrap is not used then.
    """
    if not hasattr(os, "geteuid") or (os.geteuid() == 0 and nobody_can_run()):
        return []
    bwrap = shutil.which("bwrap")
    return _command(bwrap, folder, files) if bwrap and _works(bwrap) else []


def root_warning() -> str | None:
    """A warning if code that a model wrote would run as root; None if it would not."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or nobody_can_run():
        return None
    bwrap = shutil.which("bwrap")
    if bwrap and _works(bwrap):
        return None
    return (
        f"code that a model wrote runs as root here, for the user nobody cannot read {sys.base_prefix}; install bubblewrap "
        "(bwrap), put Python where every user can read it, or run as an ordinary user"
    )


def nobody_can_run() -> bool:
    """Whether every user may read and run this Python, by the modes of its files and of the folders above them."""
    files = ((sys.executable, 0o001), (os.path.realpath(sys.executable), 0o001), (os.__file__, 0o004))
    return all(_open_to_all(Path(file), bit) for file, bit in files)


def _open_to_all(file: Path, bit: int) -> bool:
    try:
        return bool(file.stat().st_mode & bit) and all(p.stat().st_mode & 0o001 for p in file.absolute().parents)
    except OSError:
        return False


def _command(bwrap: str, folder: str, files: tuple[Path, ...]) -> list[str]:
    python_paths = (sys.base_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable)), *map(str, files))
    read_only_mounts = [
        word for path in dict.fromkeys((*SYSTEM, *python_paths)) for word in ("--ro-bind-try", path, path)
    ]
    return [
        *(bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--uid", NOBODY, "--gid", NOBODY),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *read_only_mounts,
        *("--bind", folder, folder, "--chdir", folder, "--"),
    ]


@cache
def _works(bwrap: str) -> bool:
    """Whether bwrap may make its namespaces here and this Python starts in them."""
    run = [*_command(bwrap, os.path.dirname(__file__), ()), sys.executable, "-I", "-S", "-c", "pass"]
    try:
        return subprocess.run(run, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
