"""The sandbox's first process: gives up what can be given up, then becomes the program.  Standard library only.

``python -I -S -B confine.py FOLDER SECONDS MEMORY``, with the program in FOLDER/main.py.  See ``sandbox.py`` for what it
contains.  System calls that Python 3.11 has no function for go through ctypes.
"""

import ctypes
import math
import os
import resource
import sys

NOBODY = 65534
FILE_SIZE, OPEN_FILES, PROCESSES = 16 << 20, 64, 32

# <linux/sched.h>, <linux/mount.h>, <linux/prctl.h>, and the number of mount_setattr on every architecture
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_BIND, MS_RECURSIVE, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1
DEATH_SIGNAL, NO_NEW_PRIVILEGES, KILL = 1, 38, 9

WITHOUT_NETWORK = """
import socket, runpy
def refused(*args, **kwargs):
    raise OSError("there is no network in the sandbox")
for name in ("connect", "connect_ex", "bind", "sendto", "sendmsg"):
    setattr(socket.socket, name, refused)
for name in ("create_connection", "create_server", "getaddrinfo", "gethostbyname", "gethostbyaddr"):
    setattr(socket, name, refused)
del name, refused, socket
runpy.run_path("main.py", run_name="__main__")
"""


def main() -> None:
    folder, seconds, memory = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    os.chdir(folder)
    os.environ.pop("PWD", None)  # bwrap sets it
    become_nobody(folder)
    die_with_parent()
    if sys.platform == "linux" and namespaces(folder):
        fork_and_follow()  # the child is the first process of its namespace: with it, the kernel ends all others there
        die_with_parent()
        fork_and_follow()
        limit(seconds, memory)
        os.execv(sys.executable, [*python(), "main.py"])
    limit(seconds, memory)
    os.execv(sys.executable, [*python(), "-c", WITHOUT_NETWORK])


def python() -> list[str]:
    return [sys.executable, "-I", "-S", "-B", "-X", "utf8"]


def become_nobody(folder: str) -> None:
    """Root becomes nobody, if nobody can run this Python and reach the folder."""
    if os.geteuid() != 0:
        return
    os.seteuid(NOBODY)
    files = ((sys.executable, os.X_OK), (os.__file__, os.R_OK), (os.path.dirname(folder), os.X_OK))
    nobody_can_run = all(os.access(file, mode, effective_ids=True) for file, mode in files)
    os.seteuid(0)
    if nobody_can_run:
        os.chown(".", NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def namespaces(folder: str) -> bool:
    """New user, network, process, IPC and mount namespaces, all or none; in the last, only ``folder`` can be written."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_USER | NEW_NETWORK | NEW_PROCESSES | NEW_IPC | NEW_MOUNTS) != 0:
        return False
    folder_path = os.fsencode(folder)
    libc.mount(b"none", b"/", None, MS_RECURSIVE | MS_PRIVATE, None)
    libc.mount(folder_path, folder_path, None, MS_BIND, None)
    set_flags(libc, b"/", AT_RECURSIVE, READ_ONLY, 0)
    set_flags(libc, folder_path, 0, 0, READ_ONLY)
    os.chdir(folder)  # again: through the new mount
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return True


def set_flags(libc: ctypes.CDLL, path: bytes, at_flags: int, set_attributes: int, clear_attributes: int) -> None:
    """mount_setattr(2): Linux 5.12; before that the file system stays writable."""
    attributes = (ctypes.c_uint64 * 4)(set_attributes, clear_attributes, 0, 0)
    libc.syscall(MOUNT_SETATTR, AT_FDCWD, path, at_flags, attributes, 32)


def die_with_parent() -> None:
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, KILL, 0, 0, 0)


def fork_and_follow() -> None:
    """Fork; the child continues, the parent waits for it and exits with its status."""
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)


def limit(seconds: float, memory: int) -> None:
    """The limits of setrlimit(2); a system that does not have one of them goes without it."""
    time = math.ceil(seconds) + 1
    limits = {"CPU": time, "AS": memory, "FSIZE": FILE_SIZE, "NOFILE": OPEN_FILES, "CORE": 0}
    for name, value in (limits | {"NPROC": PROCESSES}).items():
        try:
            resource_id = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(resource_id)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(resource_id, (value, value))
        except (AttributeError, ValueError, OSError):
            continue


if __name__ == "__main__":
    main()
