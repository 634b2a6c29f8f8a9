"""The runs of a comparison side by side: the same records in the same order, errors, signals, and what is gone on with."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import PATH
from tiny_compare import RECIPE, call, said

from expunge import jobs, record
from expunge.jobs.tasks import Done, carry_out
from expunge.training import keeper, signals
from expunge.unlearning import run as unlearning_run

TIMES = {"seconds", "created", "command", "peak_memory_bytes", "parts", "began"}


def without_times(value, out):
    """A record without what two runs of the same settings have otherwise, their folder ``out`` included."""
    if isinstance(value, dict):
        return {k: without_times(v, out) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [without_times(v, out) for v in value]
    return value.replace(f"{out}/", "") if isinstance(value, str) else value


def records(out):
    """File -> what it says, of all JSON files below ``out``."""
    files = sorted(p for p in Path(out).rglob("*.json") if "unfinished" not in p.parts)
    return {p.relative_to(out).as_posix(): without_times(json.loads(p.read_text()), out) for p in files}


def test_in_other_processes_the_records_are_the_same_and_a_lost_one_is_a_run_that_failed(finished, monkeypatch):
    """Tasks as in other processes: pickled there and back, those that began last end first."""

    def spread(tasks, settings, **_):
        for task in list(tasks)[::-1]:
            yield pickle.loads(pickle.dumps(carry_out(pickle.loads(pickle.dumps(task)))))

    def lost(tasks, settings, **_):
        return (Done(task.name, error="its process was killed 3 times", code=1) for task in tasks)

    monkeypatch.setattr(jobs, "spread", lambda *a, **k: (one for one in spread(*a, **k)))
    done = call("--jobs", 2, "--out", "apart")
    assert done.exit_code == 0, (done.output[-900:], done.exception)
    assert records("apart") == records("out")
    lines = [line.strip() for line in done.output.splitlines() if " done: " in line]
    assert [line.split()[4] for line in lines] == ["npo_low-seed0", "pdu-seed0"]
    assert lines[1].startswith("2 of 2 done: pdu-seed0  ") and "forget/probability 0." in lines[1]
    shutil.rmtree("apart/runs/npo_low-seed0")
    monkeypatch.setattr(jobs, "spread", lost)
    done = call("jobs=2", "--out", "apart")
    assert done.exit_code == 1 and "npo_low-seed0 failed: its process was killed 3 times" in done.output
    assert [r["done"] for r in said("apart")["runs"]] == [True, False]


@pytest.mark.parametrize("args", [("--jobs", 2, "--device", "cuda:0"), ("--cluster", "auto")])
def test_what_rules_out_several_at_once_is_told_before_a_model_is_loaded(place, monkeypatch, args):
    monkeypatch.setattr("expunge.models.load", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr("expunge.jobs.cluster.find_spec", lambda name: None)
    done = call(*args)
    assert done.exit_code == 2 and ("contradict each other" in done.output or "expunge[cluster]" in done.output)


def test_a_run_that_a_signal_ends_goes_on_within(finished, monkeypatch):
    """In the first run's training, when nothing in the folder is finished yet."""
    save, sent = keeper.Keeper.on_step_end, []

    def on_step_end(self, *args, **kwargs):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return save(self, *args, **kwargs)

    with monkeypatch.context() as m:
        m.setattr(keeper.Keeper, "on_step_end", on_step_end)
        cut = call("--out", "cut")
    assert cut.exit_code == 143, cut.output
    assert (
        "stopped after step 1 of 2, which is saved; 0 of 2 runs are finished; go on with: expunge compare" in cut.output
    )
    assert not Path("cut/compare.json").exists()
    begun, own = [], unlearning_run.run
    monkeypatch.setattr(unlearning_run, "run", lambda plan, **k: (begun.append(own(plan, **k)), begun[-1])[1])
    again = call("--out", "cut")
    assert again.exit_code == 0, again.output
    assert [part["from_step"] for part in record.read("cut/runs/pdu-seed0/run")["parts"]] == [0, 1]
    assert records("cut") == records("out")


def test_a_keyboard_interrupt_of_another_library_ends_like_ours():
    error = signals.within(KeyboardInterrupt(), "1 of 2 runs are finished")
    assert (error.number, error.code) == (signal.SIGINT, 130)
    assert error.sentence == "interrupted; 1 of 2 runs are finished"
    with signals.caught(), signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.within(KeyboardInterrupt(), "…").code == 143


# -- real processes -------------------------------------------------------------------------------------------------------
def start(place, *args):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(PATH), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "expunge", "compare", "r.toml", "max_steps=40", "save_every=0.2s", *map(str, args)]
    return subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_comparison_is_killed_at_random_moments(place, seed):
    """The command, or one of its jobs, killed or told to end, again and again: in the end the records are the same."""
    import random

    import psutil

    draws = random.Random(seed)
    (place / "r.toml").write_text(RECIPE)
    whole = start(place, "--out", "whole")
    assert (whole.communicate()[0], whole.returncode)[1] == 0
    for attempt in range(30):
        one = start(place, "--out", "cut", "--jobs", 2)
        time.sleep(draws.uniform(3, 25))
        children = psutil.Process(one.pid).children(recursive=True) if one.poll() is None else []
        working = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
        number = draws.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
        if attempt < 6 and one.poll() is None:
            if working and draws.random() < 0.4:
                draws.choice(working).kill()
            else:
                one.send_signal(number)
        text, _ = one.communicate()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        if one.returncode == 0:
            break
        assert one.returncode in (-signal.SIGKILL, 128 + number), text
    assert one.returncode == 0, text
    assert records(place / "cut") == records(place / "whole")
