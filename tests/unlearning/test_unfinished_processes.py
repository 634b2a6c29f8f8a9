"""``expunge run`` in two processes of which one is killed: the other ends with a sentence, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import PATH, two_processes
from resumed import assert_same

from expunge import record

STRATEGIES = {"ddp": [], "fsdp2": ["fsdp=full_shard", 'fsdp_config={"version": 2}']}
RUN = [
    "run", "--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--method", "pdu",
    "--save-every", "0", "max_steps=8", "learning_rate=0.01", "per_device_train_batch_size=1", "--processes", "2",
]  # fmt: skip


def started(out: str, *more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(PATH)}
    command = [sys.executable, "-m", "expunge", *RUN, *more, "--out", out]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rank(launcher: int, number: int) -> int:
    """The process id of rank ``number``."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={number}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(f"no rank {number}")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_process_is_killed(workplace, strategy):
    how = STRATEGIES[strategy]
    whole = started("whole", *how)
    _, said = whole.communicate(timeout=600)
    assert whole.returncode == 0, said[-3000:]
    for number in (0, 1):
        out = f"cut-{number}"
        run = started(out, *how)
        while run.poll() is None and not list(Path(out).glob("unfinished/checkpoint-*")):
            time.sleep(0.01)
        os.kill(rank(run.pid, number), signal.SIGKILL)
        _, said = run.communicate(timeout=240)
        assert run.returncode == 128 + signal.SIGKILL
        assert said.count("another of the 2 processes is gone: it was killed, or ran out of memory") == 1
        assert not Path(out, "run.json").exists()
        again = started(out, *how)
        _, said = again.communicate(timeout=600)
        assert again.returncode == 0, said[-3000:]
        assert_same(out, "whole")
        assert [part["processes"] for part in record.read(out)["parts"]] == [2, 2]
    alone = started("alone", *how)
    while alone.poll() is None and not list(Path("alone").glob("unfinished/checkpoint-*")):
        time.sleep(0.01)
    alone.send_signal(signal.SIGTERM)
    _, said = alone.communicate(timeout=240)
    assert alone.returncode == 143 and "which is saved; go on with: expunge run" in said


FULL = """
import os, sys
import processes_worker as worker
from expunge.training import manifest, pieces
from pathlib import Path

folder, strategy, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
row = worker.rows()["full/adamw/pdu"]

def full(own, at):
    calls = iter(range(100))
    def write(*args, **kwargs):
        if next(calls) == at:
            raise OSError(28, "No space left on device")
        return own(*args, **kwargs)
    return write

t = worker.trainer(row, folder, strategy, 2)
t.keeper._due = lambda state: True
if rank == 0:
    pieces.save_file = full(pieces.save_file, 1)
else:
    t._save_rng_state = full(t._save_rng_state, 2)
t.train()
print(t.keeper.saved.step, t.keeper.saved.problems)
assert [p.name for p in folder.glob("checkpoint-*")] == [f"checkpoint-{worker.STEPS}"], list(folder.iterdir())
import torch
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_full_disk_of_one_process_is_said_by_all(tmp_path, strategy):
    for status, out, err in two_processes(["-c", FULL, str(tmp_path), strategy], tmp_path):
        assert status == 0, err[-3000:]
        assert out.count("could not be written (no space left on device)") == 2
