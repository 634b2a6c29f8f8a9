"""The lock file: held by one, taken over from the dead, with and without the system's file lock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from expunge import lock
from expunge.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from expunge import lock
lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["flock", "no flock"])
def kind(request, monkeypatch):
    """A file system with the system's lock, and one without."""
    if request.param == "no flock":

        def unsupported(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", unsupported)
    return request.param


def owner(folder):
    return json.loads((folder / lock.FILE).read_text())


def test_one_holds_it_until_it_lets_go(tmp_path, kind):
    acquired = lock.acquire(tmp_path)
    assert owner(tmp_path)["pid"] == os.getpid() and owner(tmp_path)["host"] == socket.gethostname()
    with pytest.raises(InputError, match=f"process {os.getpid()} on"):
        lock.acquire(tmp_path)
    lock.release(acquired, keep=False)
    assert not list(tmp_path.iterdir())
    lock.release(lock.acquire(tmp_path), keep=True)
    assert lock.is_left(tmp_path) and owner(tmp_path) == {"unfinished": True}
    lock.release(lock.acquire(tmp_path), keep=False)
    assert not lock.is_left(tmp_path)


def test_a_killed_process_holds_nothing(tmp_path, kind):
    """The child has the real flock; without one here, its number decides."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    try:
        with pytest.raises(InputError, match=f"process {child.pid} on"):
            lock.acquire(tmp_path)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    lock.release(lock.acquire(tmp_path), keep=False)


def test_without_flock_a_process_of_another_machine_may_be_alive(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / lock.FILE).write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "then"}))
    with pytest.raises(InputError, match=r"process 1 on elsewhere, since then.*if no such run is alive, remove"):
        lock.acquire(tmp_path)
    (tmp_path / lock.FILE).write_text("")  # just begun
    with pytest.raises(InputError, match="another run is writing"):
        lock.acquire(tmp_path)
    os.utime(tmp_path / lock.FILE, (0, 0))
    lock.release(lock.acquire(tmp_path), keep=False)


def test_of_many_at_once_one_has_it_at_a_time(tmp_path, kind):
    inside, most, lost = [0], [0], []

    def work() -> None:
        for _ in range(30):
            try:
                acquired = lock.acquire(tmp_path)
            except InputError:
                continue
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1
            lock.release(acquired, keep=False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most == [1] and not lost


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock, "_write", full)
    with pytest.raises(OSError, match="No space"):
        lock.acquire(tmp_path)
    assert not list(tmp_path.iterdir())
