"""Signals that end a run: noted while it trains, so that the step is finished and saved; elsewhere an exception at once.

Ctrl-C, SIGTERM, a hung-up terminal, and SIGUSR1, which Slurm sends before the time is up (``--signal=USR1@120``).  Only what
has its default handler is taken, in the main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from expunge.processes import ENDING, JOB

AGAIN = 1.0  # seconds: a second Ctrl-C that comes earlier is the same one, passed on by a launcher
SAYS_AGAIN = "the same call goes on from there"


class Interrupted(KeyboardInterrupt):
    """A run that a signal ended; ``code`` is the exit status, ``sentence`` what is said of it, ``step`` what is saved."""

    def __init__(self, number: int, sentence: str = "interrupted", *, step: int | None = None):
        super().__init__(sentence if step is None else f"{sentence}; {SAYS_AGAIN}")
        self.number = number
        self.sentence = sentence
        self.step = step
        self.code = 128 + number


def within(error: KeyboardInterrupt, sentence: str) -> Interrupted:
    """``error`` as the end of a command of several runs, of which ``sentence`` says more; the same command goes on."""
    if not isinstance(error, Interrupted):  # a library may raise its own in place of ours
        error = Interrupted(_received.number or signal.SIGINT)
    return Interrupted(error.number, f"{error.sentence}; {sentence}", step=error.step or 0)


@dataclass
class _Received:
    """The signal that this process received first, if any."""

    number: int | None = None
    at: float = 0.0
    deferred: bool = False


_received = _Received()


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Within, a signal raises :class:`Interrupted`, or is noted (:func:`deferred`); afterwards all is as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    default = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in ENDING if signal.getsignal(n) in default}
    try:
        for number in before:
            signal.signal(number, _handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _received.number = None


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Within, a signal is only noted: what is yielded gives its number, None as long as there was none."""
    before, _received.deferred = _received.deferred, True
    try:
        yield lambda: _received.number
    finally:
        _received.deferred = before


def _handle(number: int, frame: Any) -> None:
    now = time.monotonic()
    first = _received.number is None
    at_once = not first and number == signal.SIGINT and now - _received.at >= AGAIN
    if first:
        _received.number, _received.at = number, now
    if at_once or (first and not _received.deferred):
        raise Interrupted(number)
    if first and os.environ.get("RANK", "0") == "0" and JOB not in os.environ:
        with contextlib.suppress(OSError):
            os.write(2, b"\nexpunge: stopping after this step, which is saved; Ctrl-C again ends at once\n")
