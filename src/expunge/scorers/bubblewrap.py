"""bwrap (bubblewrap) around the sandbox, where it is installed and works; and what it means to run as root without it.

With it the code sees the system's libraries, this Python and its own folder, and no other file: your home, ``/tmp`` and
``/proc`` of other processes are not there to be read.
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
    """What stands before the sandbox's own command so that it runs under bwrap with ``folder`` to write in; [] without it.

    ``files``: what it must read besides.  Root becomes nobody where that one can run this Python, which limits more than
    bwrap as root does, so bwrap is not used there.
    """
    if not hasattr(os, "geteuid") or (os.geteuid() == 0 and nobody_can_run()):
        return []
    found = shutil.which("bwrap")
    return _command(found, folder, files) if found and _works(found) else []


def as_root() -> str | None:
    """A warning where what a model wrote would run as root, with all that root may do; None where it would not."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or nobody_can_run():
        return None
    found = shutil.which("bwrap")
    if found and _works(found):
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
    own = (sys.base_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable)), *map(str, files))
    seen = [word for place in dict.fromkeys((*SYSTEM, *own)) for word in ("--ro-bind-try", place, place)]
    return [
        *(bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--uid", NOBODY, "--gid", NOBODY),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *seen,
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
