"""Tasks on a Ray cluster: one that runs (``auto``, or its address), or one that is started on this machine (``local``).

Ray places the tasks, gives each its CPUs and its GPU, and starts a task again, on another node if need be, whose process or
node is gone.  The nodes need what this machine has: expunge in the same environment, and model, data and output folder under
the same path.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from expunge.errors import InputError
from expunge.jobs.tasks import ATTEMPTS, Done, Task, carry_out, killed
from expunge.processes import ENDING, JOB

PERIOD = 1.0  # seconds that one wait for results takes at most


def check_installed() -> None:
    """Raise InputError where Ray is missing."""
    if find_spec("ray") is None:
        raise InputError("a cluster needs Ray: pip install 'expunge[cluster]'; without it, --jobs N uses this machine")


def spread(
    tasks: Iterable[Task],
    address: str,
    jobs: int | None = None,
    *,
    device: str | None = None,
    prepare: Callable[[], Any] | None = None,
) -> Generator[Done, None, None]:
    """What came of ``tasks`` on the cluster at ``address``, in the order in which they end.

    ``jobs``: how many at once at most, None for as many as there is room for.  Each has a GPU where the cluster has any and
    ``device`` is not "cpu".  Raises InputError where there is no cluster.
    """
    check_installed()
    import ray

    with _connected(address):
        cpus, gpus, room = _shares(ray.cluster_resources(), jobs, device)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": ATTEMPTS - 1, "scheduling_strategy": "SPREAD"}
        work = ray.remote(**options)(_work)
        waiting, running = iter(tasks), dict[Any, Task]()
        try:
            while True:
                while len(running) < room and (task := next(waiting, None)) is not None:
                    running[work.options(name=task.name).remote(task, os.getcwd(), prepare)] = task
                if not running:
                    return
                ended, _ = ray.wait(list(running), timeout=PERIOD)
                for reference in ended:
                    yield _result(reference, running.pop(reference))
        except BaseException:
            _end(list(running))
            raise


def _shares(resources: dict[str, float], jobs: int | None, device: str | None) -> tuple[int, int, int]:
    """CPUs and GPUs of a task, and how many tasks at once.

    >>> _shares({"CPU": 64.0, "GPU": 8.0}, None, None), _shares({"CPU": 64.0, "GPU": 8.0}, 4, None)
    ((8, 1, 8), (8, 1, 4))
    >>> _shares({"CPU": 2.0}, None, None), _shares({"CPU": 8.0}, 2, None), _shares({"CPU": 8.0, "GPU": 1.0}, 2, "cpu")
    ((1, 0, 2), (4, 0, 2), (4, 0, 2))
    """
    cpus, gpus = max(1, int(resources.get("CPU", 1))), 0 if device == "cpu" else int(resources.get("GPU", 0))
    room = gpus or cpus
    room = min(room, jobs) if jobs else room
    return max(1, cpus // (gpus or room)), int(gpus > 0), room


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection to the cluster at ``address``; one that the caller's program has is used and stays."""
    import ray

    if ray.is_initialized():
        yield
        return
    own = {"include_dashboard": False} if address == "local" else {}
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        ray.init(address=address, logging_level="error", log_to_driver=True, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"there is no Ray cluster at {address!r} ({first}); start one with `ray start --head`, or say local"
        ) from None
    try:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray has one of its own for SIGTERM, which exits
                signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


def _result(reference: Any, task: Task) -> Done:
    """What came of a task that ended."""
    import ray

    try:
        done: Done = ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError):
        return killed(task, ATTEMPTS)
    except ray.exceptions.RayError as error:  # of its own: a node without expunge, a result that cannot be pickled
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Done(task.name, error=f"{type(error).__name__}: {lines[-1]}", code=1)
    return done


def _end(running: list[Any]) -> None:
    """Have the tasks that run save what they have and end; whatever interrupts that kills them."""
    import ray

    from expunge.jobs.local import ENDS

    if running:
        print(f"\nexpunge: {ENDS}", file=sys.stderr)
    try:
        for reference in running:
            ray.cancel(reference, force=False)
        while running:
            _, running = ray.wait(running, num_returns=len(running), timeout=PERIOD)
    except BaseException:
        for reference in running:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
        raise


def _work(task: Task, folder: str, prepare: Callable[[], Any] | None) -> Done:
    """Carry out ``task`` in a process of Ray's, in the folder that it was asked from."""
    try:
        os.chdir(folder)
    except OSError as error:
        host = os.uname().nodename if hasattr(os, "uname") else "a node"
        where = f"the node {host} has no folder {folder} ({(error.strerror or 'an error').lower()})"
        return Done(task.name, error=f"{where}; the nodes of a cluster need a file system that all see", code=2)
    os.environ[JOB] = "1"
    if prepare:
        prepare()
    return carry_out(task)
