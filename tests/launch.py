"""A command run by several processes that find each other, and what a test session does once for all its xdist workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import bench_worker
import pytest
from filelock import FileLock

import expunge

TESTS = Path(__file__).parent
PATH = [str(Path(expunge.__file__).parents[1]), str(TESTS), str(TESTS.parent)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def two_processes(
    command: Sequence[str], cwd: Path, more: Mapping[str, str] | None = None
) -> list[tuple[int, str, str]]:
    """Run Python's arguments ``command`` in two processes with what ``torchrun`` gives them to find each other; (exit
    status, stdout, stderr) of each."""
    env = {**os.environ, **environment(2), **(more or {})}
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env={**env, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        ended = [one.communicate(timeout=240) for one in running]
    finally:
        for one in running:
            one.kill()
    return [(one.returncode, *texts) for one, texts in zip(running, ended, strict=True)]


def environment(n: int) -> dict[str, str]:
    """What ``torchrun`` gives ``n`` processes to find each other, all but their ranks."""
    env = {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(PATH),
    }
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return env | {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}


def several_processes(script: str, arguments: Sequence[str], cwd: Path, n: int = 2) -> str:
    """Run a worker ``script`` of this folder, which forks ``n`` ranks of itself, with what ``torchrun`` gives them to find
    each other; how it ended."""
    ranks = subprocess.Popen(
        [sys.executable, str(TESTS / script), *arguments],
        cwd=cwd,
        env={**os.environ, **environment(n)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = ranks.communicate(timeout=240 * n)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ranks.pid, signal.SIGKILL)
    return f"{ranks.returncode}: {said[-6000:]}"


def in_ranks(work: Callable[[], None]) -> int:
    """``work`` in as many forks of this process as ``WORLD_SIZE`` says, so that what it has imported is imported once; 0, or
    how a rank ended."""
    ranks = []
    for rank in range(int(os.environ["WORLD_SIZE"])):
        if (child := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ranks.append(child)
    return max(os.waitpid(child, 0)[1] for child in ranks)


def forked(work: Callable[[], int], folder: Path, n: int = 2) -> str:
    """``work``, which forks ``n`` ranks, in a fork of this process, whose imports are done; how it ended."""
    said = folder / "output"
    if (child := os.fork()) == 0:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            os.environ |= environment(n)
            sys.stdout = sys.stderr = said.open("w", buffering=1)
            for stream in (1, 2):
                os.dup2(sys.stdout.fileno(), stream)
            code = int(work() != 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        until = time.monotonic() + 240 * n
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    return f"{os.waitstatus_to_exitcode(ended[1]) if ended[0] else 'out of time'}: {said.read_text()[-6000:]}"


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` fills in the first process of the test session that asks for it."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # each worker has a folder of its own in the session's
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def launched(factory: pytest.TempPathFactory) -> Path:
    """The folder that the session's one launch of two processes left its results in; ``said`` is what went wrong."""

    import ddp_worker  # which imports this file

    def launch(folder: Path) -> None:
        (folder / "bench").mkdir()
        bench_worker.prepare(folder / "bench", free_port)
        ranks = partial(ddp_worker.work, folder, False)
        (folder / "said").write_text(forked(partial(in_ranks, ranks), folder))

    return once(factory, "two-processes", launch)
