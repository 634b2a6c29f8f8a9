"""One rank of the two-process test: ``torchrun ddp_worker.py METHOD PARAMETERS FOLDER`` writes the step taken."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import tiny
import torch

from expunge import methods  # noqa: F401  fills the table
from expunge.method import build

name, parameters, folder = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
trainer = tiny.trainer(build(name, parameters), learning_rate=0.05, data=tiny.paired(16, 8), ddp_backend="gloo")
trainer.train()
moved = tiny.delta(trainer.accelerator.unwrap_model(trainer.model), tiny.model())
torch.save(moved, folder / f"{os.environ['RANK']}.pt")
