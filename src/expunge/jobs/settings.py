"""How many tasks run at once and where, as a value; and the tasks spread accordingly."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from expunge.errors import InputError
from expunge.jobs import cluster, local
from expunge.jobs.tasks import Done, Task, carry_out

Count = Annotated[
    int | None,
    Field(
        ge=1,
        le=1024,
        description="Carry out that many runs at once, each in a process with a device of its own and a share of the CPUs.",
        json_schema_extra={"metavar": "N"},
    ),
]
Address = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Spread the runs over a Ray cluster: auto (the one that this machine belongs to), local, or an address "
        "such as HOST:6379.",
        json_schema_extra={"metavar": "ADDRESS"},
    ),
]


@dataclass(frozen=True)
class Jobs:
    """``jobs`` tasks at once, None for one: in that many processes of this machine, or on the Ray cluster at an address."""

    jobs: int | None = None
    cluster: str | None = None


def check(settings: Jobs, *, device: str | None = None, processes: int | None = None) -> None:
    """Raise InputError where the tasks cannot be spread: Ray is missing, or what they share rules it out.

    ``device`` and ``processes``: what each task is to compute on and in.
    """
    if settings.cluster:
        cluster.check_installed()
    if not is_spread(settings):
        return
    option = "--cluster" if settings.cluster else f"--jobs {settings.jobs}"
    if device and ":" in device:
        raise InputError(
            f"--device {device} and {option} contradict each other: each run has a device of its own; leave out one of the "
            "two, or choose the devices with CUDA_VISIBLE_DEVICES"
        )
    if processes and processes > 1:
        raise InputError(
            f"--processes {processes} and {option} contradict each other: a run is one process; leave out one"
        )


def limited(settings: Jobs, n: int) -> Jobs:
    """``settings`` for ``n`` tasks: no more jobs than tasks, so that those there are have the machine.

    >>> limited(Jobs(8), 2), limited(Jobs(8), 0), limited(Jobs(None, "auto"), 2)
    (Jobs(jobs=2, cluster=None), Jobs(jobs=1, cluster=None), Jobs(jobs=None, cluster='auto'))
    """
    return replace(settings, jobs=max(1, min(settings.jobs, n))) if settings.jobs else settings


def is_spread(settings: Jobs) -> bool:
    """Whether tasks run in other processes than this one."""
    return bool(settings.cluster) or (settings.jobs or 1) > 1


def spread(
    tasks: Iterable[Task],
    settings: Jobs,
    *,
    device: str | None = None,
    prepare: Callable[[], Any] | None = None,
) -> Generator[Done, None, None]:
    """What came of ``tasks``, in the order in which they end; a task is taken when there is room for it, not before.

    With one job they run here, one after the other.  A task whose process is killed is started again, so it should go on
    from what it saved.  A signal ends the tasks that run, each as it ends a task here, and is then raised.  ``device``: what
    the tasks compute on, None for an accelerator each; ``prepare()``, found by its name, is called in each process.

    Close what is returned where it is left early (``contextlib.closing``): that ends the tasks.
    """
    check(settings, device=device)
    if settings.cluster:
        yield from cluster.spread(tasks, settings.cluster, settings.jobs, device=device, prepare=prepare)
    elif is_spread(settings):
        yield from local.spread(tasks, settings.jobs or 1, device=device, prepare=prepare)
    else:
        yield from map(carry_out, tasks)
