"""Tasks in processes of this machine: one pool of one process for each job, so that a killed process takes no other along.

Each process has a device of its own, as far as there are enough, and its share of the CPUs.  It ends with the process that
started it, however that ends.  A terminal's signals reach only that one, which has the jobs finish their step and save it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from typing import Any

from expunge.errors import InputError
from expunge.jobs.tasks import ATTEMPTS, Done, Task, carry_out, killed, named_output
from expunge.processes import ENDING, JOB

AGAIN = 1.0  # seconds after which a job is asked again to end: it may have been between two tasks
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
ENDS = "ending the jobs, each after its step, which is saved; Ctrl-C again ends them at once"


@dataclass
class _Job:
    """A pool of one process, started when it is first used, and again after the process was killed."""

    environment: Mapping[str, str]
    prepare: Callable[[], Any] | None = None
    pool: ProcessPoolExecutor | None = None
    process: int | None = None
    future: Future[Done] | None = None

    def submit(self, task: Task) -> Future[Done]:
        """Start ``task``; raises InputError where no process can be started."""
        if self.pool is None:
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(1, spawn, _begin, (dict(self.environment), self.prepare))
            with _blocked():  # the new process has them blocked until it has its handlers
                pid = self.pool.submit(os.getpid)
            try:
                self.process = pid.result()
            except BrokenProcessPool:
                raise InputError(
                    "the process of a job ended as it began; in a script of your own the call with jobs must stand under "
                    'if __name__ == "__main__":'
                ) from None
        self.future = self.pool.submit(_work, task)
        return self.future

    def works(self) -> bool:
        """Whether a task is being carried out."""
        return self.future is not None and not self.future.done()

    def signal(self, number: int) -> None:
        """Send the process a signal, if it is there."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, number)

    def end(self) -> None:
        """End the process, which is idle or was killed."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool = self.process = None


@dataclass
class _Running:
    """A task in a job, for the ``attempt``-th time."""

    job: _Job
    task: Task
    attempt: int = field(default=1)


def spread(
    tasks: Iterable[Task],
    jobs: int,
    *,
    device: str | None = None,
    prepare: Callable[[], Any] | None = None,
) -> Generator[Done, None, None]:
    """What came of ``tasks`` in ``jobs`` processes, in the order in which they end; the next is taken when a job is free.

    A task whose process is killed is started again, up to ``ATTEMPTS`` times.  ``device``: where the tasks compute, None
    for an accelerator each; ``prepare()`` is called once in each process.
    """
    free = [_Job(own, prepare) for own in environments(jobs, device)]
    all_jobs, waiting = tuple(free), iter(tasks)
    running: dict[Future[Done], _Running] = {}
    try:
        while True:
            while free and (task := next(waiting, None)) is not None:
                job = free.pop(0)
                running[job.submit(task)] = _Running(job, task)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                one = running.pop(future)
                done = _result(future, one)
                if done is None:
                    print(f"{one.task.name}: its process was killed; it is started again", file=sys.stderr)
                    running[one.job.submit(one.task)] = replace(one, attempt=one.attempt + 1)
                else:
                    free.append(one.job)
                    yield done
    except BaseException:
        _end(all_jobs)
        raise
    finally:
        for job in all_jobs:
            job.end()


def environments(jobs: int, device: str | None = None) -> list[dict[str, str]]:
    """The environment variables of each job: which device it sees, and how many threads it computes with.

    What the user has set of the threads stays; where there are more jobs than devices, jobs share them.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {name: os.environ.get(name, str(max(1, here // jobs))) for name in THREADS}
    variable, names = (None, []) if device else _devices()
    return [threads | ({variable: names[at % len(names)]} if variable and names else {}) for at in range(jobs)]


def _devices() -> tuple[str | None, list[str]]:
    """The variable by which a process is given a device, and the devices that this one has."""
    import torch

    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    variable = VISIBLE.get(kind.type) if kind else None
    if not variable:
        return None, []
    set_here = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
    return variable, set_here or [str(at) for at in range(torch.accelerator.device_count())]


# -- the end --------------------------------------------------------------------------------------------------------------
def _result(future: Future[Done], one: _Running) -> Done | None:
    """What came of a task; None where its process was killed, or told to end, and it is to be started again."""
    error = future.exception()
    if error is None and not (done := future.result()).stopped:
        return replace(done, attempts=one.attempt)
    if isinstance(error, BrokenProcessPool):
        one.job.end()
    elif error is not None:  # arguments or a result that cannot be pickled
        return Done(one.task.name, error=f"{type(error).__name__}: {error}", code=1, attempts=one.attempt)
    return killed(one.task, one.attempt) if one.attempt >= ATTEMPTS else None


def _end(jobs: Sequence[_Job]) -> None:
    """Have the jobs that work save what they have and end; whatever interrupts that kills them."""
    if any(job.works() for job in jobs):
        print(f"\nexpunge: {ENDS}", file=sys.stderr)
    try:
        while left := [job for job in jobs if job.works()]:
            for job in left:
                job.signal(signal.SIGTERM)
            wait([job.future for job in left if job.future], timeout=AGAIN)
    except BaseException:
        for job in jobs:
            job.signal(signal.SIGKILL)
        raise


# -- in the job's process -------------------------------------------------------------------------------------------------
def _begin(environment: Mapping[str, str], prepare: Callable[[], Any] | None) -> None:
    """Begin a job's process: its share of the machine, a session of its own, signals ignored between tasks."""
    os.environ.update(environment, **{JOB: "1"})
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(environment[THREADS[0]]))
    with contextlib.suppress(AttributeError, OSError):
        os.setsid()
    _handle(ignored=True)
    _mask(signal.SIG_UNBLOCK)
    threading.Thread(target=_end_with_parent, daemon=True, name="expunge-jobs").start()
    if prepare:
        prepare()


def _work(task: Task) -> Done:
    """Carry out ``task``; a signal ends it, not the process."""
    _handle(ignored=False)
    try:
        with named_output(task.name):
            return carry_out(task)
    except KeyboardInterrupt:
        return Done(task.name, stopped=True)
    finally:
        _handle(ignored=True)


def _end_with_parent() -> None:
    """Kill this process when the one that started it is gone, whose locks it would work without."""
    if parent := multiprocessing.parent_process():
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _handle(*, ignored: bool) -> None:
    for number in ENDING:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, _ignore if ignored else usual)


def _ignore(number: int, frame: Any) -> None:
    """A handler in place of ``SIG_IGN``, which processes that this one starts would inherit."""


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Within, the signals that end a run wait."""
    _mask(signal.SIG_BLOCK)
    try:
        yield
    finally:
        _mask(signal.SIG_UNBLOCK)


def _mask(how: int) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(how, ENDING)
