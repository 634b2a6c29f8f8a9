"""One rank of the two-process test: ``torchrun ddp_worker.py METHOD PARAMETERS SOPHIA FOLDER`` writes the step taken."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import tiny
import torch

from expunge.method import build
from expunge.training.arguments import optimized

name, parameters, sophia, folder = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
method = optimized(build(name, parameters), "sophia" if sophia else None, sophia, {})
trainer = tiny.trainer(method, learning_rate=0.05, data=tiny.paired(16, 8), ddp_backend="gloo")
trainer.train()
moved = tiny.delta(trainer.accelerator.unwrap_model(trainer.model), tiny.model())
torch.save(moved, folder / f"{os.environ['RANK']}.pt")
