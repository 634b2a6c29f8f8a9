"""``--processes N``: the environment of ``torchrun``, exit codes, signals and refusals; the processes are stand-ins."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest
import torch

from expunge import launch
from expunge.errors import InputError


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Start ``n`` processes of a script in place of the command line; its exit code."""
    monkeypatch.setattr(launch, "FOR_ITSELF", 0.3)
    monkeypatch.setattr(launch, "PERIOD", 0.02)

    def start(script, n=2):
        (tmp_path / "expunge.py").write_text(f"import os, signal, sys, time\nrank = int(os.environ['RANK'])\n{script}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        return launch.start(["run", "x"], n)

    return start


def test_each_process_is_told_what_torchrun_tells(started, tmp_path):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_USE_AGENT_STORE"]
    said = f"[os.environ[n] for n in {names}] + sys.argv[1:] + [os.environ['MASTER_PORT'].isdigit()]"
    assert started(f"open(f'said-{{rank}}', 'w').write(repr({said}))") == 0
    for rank in "01":
        told = [rank, rank, "2", "2", "127.0.0.1", "True", "run", "x", True]
        assert (tmp_path / f"said-{rank}").read_text() == repr(told)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("sys.exit(2 if rank else 0)", 2),
        ("sys.exit(1) if rank else time.sleep(60)", 1),  # ends the one that waits
        ("os.kill(os.getpid(), signal.SIGKILL) if rank else time.sleep(60)", 137),
    ],
)
def test_the_exit_code_is_that_of_the_first_that_failed(script, code, started):
    assert started(script) == code


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_is_passed_on_and_waited_for(name, started, tmp_path):
    number = getattr(signal, name)

    def interrupt():
        while not all((tmp_path / f"ready-{rank}").exists() for rank in "01"):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(number)
    code = started(
        "def stop(*_):\n    time.sleep(0.8)\n    open(f'saved-{rank}', 'w')\n    sys.exit(143)\n"
        f"signal.signal(signal.{name}, stop)\nopen(f'ready-{{rank}}', 'w')\ntime.sleep(60)"
    )
    assert code == 143 and signal.getsignal(number) == before
    assert all((tmp_path / f"saved-{rank}").exists() for rank in "01")  # longer than others are given


def test_more_processes_than_gpus_are_refused(monkeypatch):
    launch.check(64)  # on CPUs
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    launch.check(2)
    launch.check(4, cpu=True)
    with pytest.raises(InputError, match="takes a GPU for each, and this machine has 2; give --processes 2"):
        launch.check(4)
    assert sys.executable
