"""The processes of one launcher: which of them this is, what one does for all, and how they end together.

``torchrun``, ``accelerate launch``, ``mpirun`` and :mod:`expunge.launch` start the same command several times and tell each
process its rank.  The main process (rank 0) writes and prints.  The first that fails says so, once, and its exit code is
every other's: a failure is noted in the launcher's key-value store, which a thread of each process looks at, so that none
waits for another that is gone.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

from expunge.errors import InputError, RunFailed

T = TypeVar("T")
# Variable of torchrun and accelerate -> what the implementations of MPI call it.
OF_MPI = {
    "RANK": ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"),
    "WORLD_SIZE": ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
    "LOCAL_RANK": ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
    "LOCAL_WORLD_SIZE": ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
}
FAILED = "expunge/failed"  # in the store: "RANK CODE" of the first process that failed
PERIOD, GRACE = 1.0, 10.0  # seconds between two looks at the store, and for a process to end by itself
CLOSED = ("closed by peer", "reset by peer", "was closed")  # as gloo and the store say it
# Ctrl-C, SIGTERM, a hung-up terminal, and SIGUSR1, which Slurm sends before the time is up.
ENDING = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, n))
JOB = "EXPUNGE_JOB"  # variable of a process that is one of several jobs (:mod:`expunge.jobs`): another speaks for it
INTERRUPTED = [128 + n for n in ENDING]  # exit codes: each process ends by itself, once it has saved what it must


# -- which one ------------------------------------------------------------------------------------------------------------
def count() -> int:
    """How many processes a launcher started; 1 without one."""
    return max(1, _number("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this process is, from 0."""
    return _number("RANK", 0) if count() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def device() -> Any:
    """Where this process runs models unless told otherwise: its accelerator, else the CPU."""
    return state().device


def state() -> Any:
    """Accelerate's ``PartialState`` of what a launcher started.  It has to be told that there is no accelerator, or takes
    each for the only one.
    """
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())


def check_one(what: str, instead: str = "start it without a launcher") -> None:
    """Raise InputError where ``what``, which runs in one process, was started in several."""
    if count() > 1:
        raise InputError(f"{what} runs in one process, and a launcher started {count()}; {instead}")


def check_count(wanted: int | None) -> None:
    """Raise InputError where other than ``wanted`` processes were started."""
    if wanted is not None and wanted != count():
        raise InputError(
            f"processes = {wanted}, and {count()} {'were' if count() > 1 else 'was'} started: the command line starts them "
            f"(`expunge run --processes {wanted}`), a script has to be started with `torchrun --nproc-per-node {wanted}`"
        )


def complete_environment() -> None:
    """Give what ``mpirun`` says of its processes the names that torch reads, and keep torch from warning in each of them."""
    if count() == 1:
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in OF_MPI:
        if name not in os.environ and (found := _number(name, -1)) >= 0:
            os.environ[name] = str(found)
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):  # all on this machine
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29500")


def _number(name: str, default: int) -> int:
    found = (os.environ.get(key, "") for key in (name, *OF_MPI[name]))
    return next((int(text) for text in found if text.isdigit()), default)


# -- one for all ----------------------------------------------------------------------------------------------------------
def grouped() -> bool:
    """Whether the processes can talk to each other."""
    if count() == 1:
        return False
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def on_main(work: Callable[[], T], tell: Callable[[T], Any] = lambda value: value) -> T:
    """What ``work`` gives in the main process; the others wait, and get what ``tell`` makes of it, which can be pickled.

    An error there is raised in all of them.
    """
    if not grouped():
        return work()
    from accelerate.utils import broadcast_object_list

    if is_main():
        try:
            value = work()
        except BaseException as error:
            code = 2 if isinstance(error, InputError) else 1
            note_failure(code)
            broadcast_object_list([(code, str(error))])
            raise
        broadcast_object_list([(0, tell(value))])
        return value
    said: list[Any] = [None]
    broadcast_object_list(said)
    code, told = said[0]
    if code:
        raise InputError(told) if code == 2 else RunFailed(told)
    return cast(T, told)


def agreed(flag: bool) -> bool:
    """Whether ``flag`` is true in all processes, which all get the same answer."""
    if not grouped():
        return flag
    from accelerate.utils import gather_object

    return all(gather_object([flag]))


# -- the end --------------------------------------------------------------------------------------------------------------
class _Board:
    """The launcher's store, and the thread that looks whether a process has failed."""

    def __init__(self, store: Any):
        self.store = store
        self.ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="expunge-processes").start()

    def failure(self) -> tuple[int, int] | None:
        """(rank, exit code) of the first process that failed; rank -1 where the store is gone, and its process with it."""
        try:
            if not self.store.check([FAILED]):
                return None
            first, code = self.store.get(FAILED).decode().split()
        except RuntimeError:  # torch's errors of the network are such
            return -1, 1
        return int(first), int(code)

    def _watch(self) -> None:
        while not self.ended.wait(PERIOD):
            if (found := self.failure()) and found[1] not in INTERRUPTED:
                if not self.ended.wait(GRACE):
                    if found[0] < 0:  # nobody else can say it
                        os.write(2, f"expunge: {lost_process()}\n".encode())
                    os._exit(found[1])
                return


_BOARD: _Board | None = None


@contextmanager
def together() -> Iterator[None]:
    """Around a command: it ends with those of the other processes, well or badly."""
    global _BOARD
    complete_environment()
    _BOARD = _opened()
    try:
        yield
        if grouped():
            import torch

            torch.distributed.barrier()  # one that ends while another talks to it aborts
    finally:
        if _BOARD:
            _BOARD.ended.set()
        _leave()
        _BOARD = None


def lost_process() -> str:
    """What is said where another process ended and did not say why."""
    return f"another of the {count()} processes is gone: it was killed, or ran out of memory"


def is_gone(error: Exception) -> bool:
    """Whether ``error`` says that a process that this one talks to has ended."""
    said = str(error).lower()
    return count() > 1 and isinstance(error, RuntimeError) and any(f"connection {how}" in said for how in CLOSED)


def note_failure(code: int) -> bool:
    """Note that this process ends with exit code ``code``; whether it is the first, which says why."""
    if _BOARD is None:
        return True
    try:
        held = _BOARD.store.compare_set(FAILED, "", f"{rank()} {code}").decode()
    except Exception:  # the process with the store is gone
        return is_main()
    return int(held.split()[0]) == rank()


def _opened() -> _Board | None:
    """The board of a launcher that has a store; None without one."""
    place, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if count() == 1 or not place or not port.isdigit():
        return None
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    hosts = is_main() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with suppress(Exception):
        store = TCPStore(
            place, int(port), count(), hosts, timedelta(seconds=60), wait_for_workers=False, multi_tenant=True
        )
        return _Board(PrefixStore("expunge", store))
    return None


def leave_at_exit() -> None:
    """Let Python end the group of processes when it ends itself, in a script that does not."""
    if count() > 1:
        atexit.unregister(_destroy)
        atexit.register(_destroy)


def _destroy() -> None:
    import torch

    with suppress(Exception):
        if grouped():
            torch.distributed.destroy_process_group()


def _leave() -> None:
    """End the group of processes; one whose peers are gone may take its time, and is left alone then."""
    if grouped():
        leaving = threading.Thread(target=_destroy, daemon=True)
        leaving.start()
        leaving.join(GRACE)
