"""Several processes: a signal to one of them ends all after the same step, and all go on to the bit."""

from __future__ import annotations

import pytest
from launch import two_processes

WORKER = """
import os, signal, sys
import tiny
from transformers import TrainerCallback
from expunge.methods import pdu
from expunge.training import keeper, manifest, signals
from pathlib import Path

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
keeper.LAG = 0.0

def trainer(out, *callbacks):
    model = tiny.model(attention_dropout=float(sys.argv[2]))
    t = tiny.trainer(pdu(multiplier=2.0, warmup=0.0), model, data=tiny.paired(16, 8),
                     out=str(folder / out / "checkpoints"), max_steps=5, optim="adamw_torch", ddp_backend="gloo")
    t.keeper.plan = keeper.Plan(folder / out / "unfinished")
    for one in callbacks:
        t.add_callback(one)
    return t

class Struck(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2 and rank == "1":
            os.kill(os.getpid(), signal.SIGTERM)

whole = trainer("whole")
whole.train()
try:
    with signals.caught():
        trainer("cut", Struck()).train()
except signals.Interrupted as error:
    print(error.sentence, error.code)
place = folder / "cut" / "unfinished" / "checkpoint-3"
assert manifest.is_whole(place), list(place.parent.iterdir())
again = trainer("cut")
again.train(resume_from_checkpoint=str(place))
print("the same", not tiny.delta(again.model, whole.model).any(), again.combine.state_dict() == whole.combine.state_dict())
import torch
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("dropout", ["0.0", "0.2"])
def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path, dropout):
    for status, out, err in two_processes(["-c", WORKER, str(tmp_path), dropout], tmp_path):
        assert status == 0, err[-3000:]
        assert "stopped after step 3 of 5, which is saved 143" in out and "the same True True" in out
