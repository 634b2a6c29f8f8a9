"""``expunge run --processes N``: the same command in N processes of this machine, which find each other.

They are started as ``torchrun`` starts them (the same environment variables, a key-value store in this process), with two
differences.  A signal is passed on once, and the processes have as long as they need to save what they have; torch's agent
kills them after 30 seconds.  And what went wrong is the sentence of the process that failed first, no page about all.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from expunge.errors import InputError
from expunge.processes import ENDING

PERIOD = 0.1  # seconds between two looks at the processes
FOR_ITSELF = 15.0  # seconds that a process has to end when another failed, and again after SIGTERM
LAST = 3  # the third signal kills


def check(n: int, *, cpu: bool = False) -> None:
    """Raise InputError where this machine has accelerators, but fewer than ``n``; with ``cpu`` they are not used."""
    import torch

    have = 0 if cpu or not torch.accelerator.is_available() else torch.accelerator.device_count()
    if 0 < have < n:
        raise InputError(
            f"--processes {n} takes a GPU for each, and this machine has {have}; give --processes {have}, or use_cpu=true "
            "to train on the CPU"
        )


def start(arguments: Sequence[str], n: int) -> int:
    """Run ``expunge ARGUMENTS`` in ``n`` processes and return the exit code: 0, or that of the first that failed."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, n, True, timedelta(minutes=30), wait_for_workers=False)
    shared = {**os.environ, **environment(n, store.port)}
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n)))
    running: list[subprocess.Popen[Any]] = []
    with _passing_on(running) as received:
        for rank in range(n):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            running.append(
                subprocess.Popen([sys.executable, "-m", "expunge", *arguments], env=own, start_new_session=True)
            )
        return _wait(running, received)


def environment(n: int, port: int) -> dict[str, str]:
    """What ``torchrun`` tells each of ``n`` processes of one machine, whose store listens on ``port``."""
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "GROUP_RANK": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_RUN_ID": "expunge",
    }


def _wait(running: Sequence[subprocess.Popen[Any]], received: Sequence[int]) -> int:
    """The exit code of all; where one fails the others are ended, unless a signal was ``received``: then each ends by
    itself.
    """
    first, ends = 0, iter((signal.SIGTERM, signal.SIGKILL))
    due = math.inf
    while alive := [p for p in running if p.poll() is None]:
        if not first and (first := _failed(running)):
            due = time.monotonic() + FOR_ITSELF
        if not received and time.monotonic() > due and (end := next(ends, None)):
            for process in alive:
                process.send_signal(end)
            due = time.monotonic() + FOR_ITSELF
        time.sleep(PERIOD)
    return first or _failed(running)


def _failed(running: Sequence[subprocess.Popen[Any]]) -> int:
    """The exit code of a process that failed, of several the least; 128 and the signal for one that was killed by one."""
    codes = [p.returncode for p in running if p.returncode]
    return min((c if c > 0 else 128 - c for c in codes), default=0)


@contextlib.contextmanager
def _passing_on(running: list[subprocess.Popen[Any]]) -> Iterator[list[int]]:
    """While open, signals that end a run go to each process of ``running``, unless this one ignores them (``nohup``);
    gives the list of those that came.
    """
    received: list[int] = []

    def pass_on(number: int, _: Any) -> None:
        received.append(number)
        for process in running:
            if process.poll() is None:
                process.send_signal(number if len(received) < LAST else signal.SIGKILL)

    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield received
    except BaseException:
        for process in running:
            process.kill()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
