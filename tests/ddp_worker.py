"""One rank of the two-process tests: ``torchrun ddp_worker.py ROWS.json FOLDER`` writes what each row's training leaves."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import tiny
import torch

from expunge import methods  # noqa: F401  fills the table
from expunge.method import build
from expunge.training.arguments import optimized
from expunge.training.curvature import inner


def left_by(row: dict[str, Any], **arguments: Any) -> dict[str, torch.Tensor]:
    """Train ``row``: the flat step, and under Sophia the flat momentum and curvature behind its last step."""
    sophia = row["sophia"]
    method = optimized(build(row["method"], row["parameters"]), "sophia" if sophia else None, sophia, {})
    t = tiny.trainer(method, learning_rate=row["learning_rate"], data=tiny.paired(16, 8), **arguments)
    t.train()
    trained = t.accelerator.unwrap_model(t.model)
    out = {"moved": tiny.delta(trained, tiny.model())}
    if sophia:
        state = inner(t.optimizer).state
        for name in ("momentum", "curvature"):
            out[name] = torch.cat([state[p][name].flatten() for p in trained.parameters()])
    return out


if __name__ == "__main__":
    rows, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    for name, row in rows.items():
        torch.save(left_by(row, ddp_backend="gloo"), folder / f"{name}.{os.environ['RANK']}.pt")
