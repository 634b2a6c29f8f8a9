"""Tasks in processes of this machine: results, errors, a killed process, the machine's shares, the end by a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from expunge import jobs
from expunge.errors import InputError
from expunge.jobs import Jobs, Task, local
from expunge.training import signals


def add(a, b):
    print(f"{a} and\n\n{b}")
    return a + b


def fail(kind, text):
    raise kind(text)


def die_once(flag):
    """Is killed the first time, and says the second time in which process it runs."""
    if Path(flag).exists():
        return os.getpid(), os.environ["OMP_NUM_THREADS"]
    Path(flag).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def work_until_stopped(flag):
    with signals.caught(), signals.deferred() as wanted:
        Path(flag).touch()
        while not wanted():
            time.sleep(0.01)
    Path(f"{flag}.saved").touch()
    raise signals.Interrupted(signal.SIGTERM)


def ended(tasks, **how):
    return {one.name: one for one in jobs.spread(tasks, Jobs(**how))}


def test_here_and_in_processes_the_results_are_the_same(tmp_path, capfd):
    tasks = [
        Task("sum", add, (1, 2)),
        Task("input", fail, (InputError, "say more")),
        Task("bug", fail, (KeyError, "x")),
        Task("killed", die_once, (str(tmp_path / "flag"),)),
    ]
    apart = ended(tasks, jobs=2)
    assert "sum: 1 and\nsum: 2\n" in capfd.readouterr().out
    here = ended(tasks)
    for found in (here, apart):
        assert found["sum"].value == 3 and found["sum"].error is None
        assert (found["input"].error, found["input"].code) == ("say more", 2)
        assert (found["bug"].error, found["bug"].code) == ("KeyError: 'x'", 1) and "fail" in found["bug"].trace
    pid, threads = apart["killed"].value
    assert pid != os.getpid() and apart["killed"].attempts == 2 and here["killed"].value[0] == os.getpid()
    assert threads == os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // 2)))
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_a_task_that_is_killed_each_time_is_told_and_the_others_go_on():
    found = ended([Task("killed", die), Task("sum", add, (1, 2))], jobs=2)
    assert found["sum"].value == 3
    assert "was killed 3 times" in found["killed"].error and found["killed"].attempts == local.ATTEMPTS


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_tasks_that_run_which_save(tmp_path, number, capfd):
    flag = tmp_path / "flag"

    def send():
        while not flag.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    with pytest.raises(signals.Interrupted) as caught, signals.caught():
        ended([Task("long", work_until_stopped, (str(flag),)), Task("sum", add, (1, 2))], jobs=2)
    assert caught.value.number == number and (tmp_path / "flag.saved").exists()
    assert "ending the jobs" in capfd.readouterr().err
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_tasks_are_taken_when_there_is_room_and_not_before():
    taken = []

    def tasks():
        for name in "ab":
            taken.append(name)
            yield Task(name, add, (1, 2))

    with contextlib.closing(jobs.spread(tasks(), Jobs())) as found:
        assert taken == [] and next(found).name == "a" and taken == ["a"]


def test_each_job_has_a_device_and_its_share_of_the_cpus(monkeypatch):
    import torch

    for name in local.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    own = [e["OMP_NUM_THREADS"] for e in local.environments(3)]
    assert own == ["5", "5", "5"]
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in local.environments(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in local.environments(2)] == ["5", "GPU-7"]
    assert [e["OMP_NUM_THREADS"] for e in local.environments(2)] == ["3", "3"]
    assert "CUDA_VISIBLE_DEVICES" not in local.environments(2, "cpu")[0]


@pytest.mark.parametrize(
    ("how", "shared", "words"),
    [
        ({"jobs": 2}, {"device": "cuda:1"}, "--device cuda:1 and --jobs 2 contradict each other"),
        ({"cluster": "auto"}, {"device": "cuda:1"}, "--device cuda:1 and --cluster contradict each other"),
        ({"jobs": 2}, {"processes": 2}, "--processes 2 and --jobs 2 contradict each other"),
    ],
)
def test_what_rules_out_jobs(how, shared, words, monkeypatch):
    monkeypatch.setattr("expunge.jobs.cluster.check_installed", lambda: None)
    with pytest.raises(InputError, match=words):
        jobs.check(Jobs(**how), **shared)
    jobs.check(Jobs(jobs=1), **shared)


def test_without_ray_a_cluster_is_refused(monkeypatch):
    monkeypatch.setattr("expunge.jobs.cluster.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'expunge\[cluster\]'"):
        jobs.check(Jobs(cluster="auto"))
