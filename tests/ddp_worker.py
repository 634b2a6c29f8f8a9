"""One rank of the session's two-process launch: ``torchrun ddp_worker.py FOLDER`` leaves there what each training and each
benchmark gave."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bench_worker
import sharded_worker
import tiny
import torch
from method_rows import LR, PARAMETERS, ROWS

from expunge.method import build
from expunge.training.arguments import optimized
from expunge.training.curvature import inner


def row(method: str, sophia: dict[str, Any], learning_rate: float = LR) -> dict[str, Any]:
    parameters = PARAMETERS.get(method, {})
    return {"method": method, "parameters": parameters, "sophia": sophia, "learning_rate": learning_rate}


FIRST_ORDER = {name: row(name, {}) for name in dict(ROWS) if not build(name, PARAMETERS.get(name, {})).optimizer}
# Steps so small that a coordinate whose clipped sign is a matter of rounding moves no other coordinate's gradient.
SOPHIA = {
    "blur_npo-gauss_newton": row("blur_npo", {"every": 2, "rho": 300}, 1e-4),
    "grad_diff-hutchinson": row("grad_diff", {"curvature": "hutchinson", "every": 1, "rho": 30}, 1e-4),
    "soul_npo-squared_gradient": row("soul_npo", {"curvature": "squared_gradient", "every": 1, "rho": 30}, 1e-4),
}


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
    folder, rank = Path(sys.argv[1]).resolve(), os.environ["RANK"]
    for name, one in (FIRST_ORDER | SOPHIA).items():
        torch.save(left_by(one, ddp_backend="gloo"), folder / f"{name}.{rank}.pt")
    sharded_worker.run(sharded_worker.IN_SESSION, folder / "sharded", 2)
    torch.distributed.destroy_process_group()
    bench_worker.run(folder / "bench", rank)
