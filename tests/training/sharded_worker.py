"""One process of several: ``python sharded_worker.py FOLDER`` trains every case and the main process leaves there how far
the weights moved.  On one process, which shards nothing, the same are what the others are compared with.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
import torch
from method_rows import IDS, LR, PARAMETERS, ROWS

from expunge.method import build
from expunge.models import attach_lora
from expunge.training.arguments import optimized

GLOBAL_BATCH = 8
FSDP2 = {"ddp_backend": "gloo", "fsdp": "full_shard", "fsdp_config": {"version": 2}}


@dataclass(frozen=True)
class Case:
    """A training: ``rows`` of the forget set in steps of :data:`GLOBAL_BATCH`, each cut into ``parts``."""

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    lora: bool = False
    parts: int = 1
    rows: int = 16
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    sophia: Mapping[str, Any] = field(default_factory=dict)
    prepared: str = ""  # the name of a function here that takes the trainer before it trains


ADAMW = {"optim": "adamw_torch", "max_grad_norm": 0.3, "learning_rate": 1e-3, "adam_epsilon": 1e-3}


def cases() -> dict[str, Case]:
    """Every method with full weights, with LoRA, and with accumulation and a short last step; and what else can differ."""
    made = {f"full-{name}": Case(*row) for name, row in zip(IDS, ROWS, strict=True)}
    made |= {f"lora-{name}": Case(*row, lora=True) for name, row in zip(IDS, ROWS, strict=True)}
    short = {"parts": 2, "rows": 12}  # two steps an epoch, the second of one part
    made |= {f"short-{name}": Case(*row, **short) for name, row in zip(IDS, ROWS, strict=True)}
    for name in ("grad_diff", "blur_npo", "pdu", "rmu"):
        own = PARAMETERS.get(name, {})
        made[f"tied-{name}"] = Case(name, own, model={"tie_word_embeddings": True})
        made[f"adamw-{name}"] = Case(name, own, training=ADAMW, **short)
        made[f"adamw-lora-{name}"] = Case(name, own, lora=True, training=ADAMW, **short)
    for curvature in ("gauss_newton", "hutchinson", "squared_gradient"):
        own = {"curvature": curvature, "every": 2, "rho": 300}
        made[f"sophia-{curvature}"] = Case("grad_diff", sophia=own, training={"learning_rate": 1e-4}, **short)
    made["copy-undial"] = Case("undial", {"retain": "js"}, prepared="live_reference")
    made["copy-rmu"] = Case("rmu", PARAMETERS["rmu"], prepared="live_reference")
    made["off-undial"] = Case("undial", {"retain": "js"}, lora=True, prepared="live_reference")
    return made


def live_reference(t: Any) -> None:
    """Put a frozen copy, or the model with its adapter off, in place of what was cached of the reference."""
    from dataclasses import replace

    from expunge.training.reference import frozen_copy, has_adapter

    whole = None if has_adapter(t.model) else t.shards.frozen_copy() if t.shards else frozen_copy(t.model)
    t.reference = replace(t.reference, hidden=None, activations=None, copy=whole)


def moved(case: Case, processes: int) -> torch.Tensor | None:
    """How far training moves the weights, flat, in the main process; None in the others."""
    model = tiny.model(**case.model)
    if case.lora:
        model = attach_lora(model, r=4, alpha=8, dropout=0.0, seed=0)
    start = copy.deepcopy(model)
    method = optimized(build(case.method, case.parameters), "sophia" if case.sophia else None, case.sophia, {})
    arguments = {
        "learning_rate": LR,
        "per_device_train_batch_size": GLOBAL_BATCH // case.parts // processes,
        "gradient_accumulation_steps": case.parts,
        **case.training,
        **(FSDP2 if processes > 1 else {}),
    }
    t = tiny.trainer(method, model, tiny.paired(case.rows, GLOBAL_BATCH), **arguments)
    if case.prepared:
        globals()[case.prepared](t)
    t.train()
    if t.shards is None:
        return tiny.delta(t.model, start)
    trained = t.shards.gathered()
    return tiny.delta(trained, start) if t.accelerator.is_main_process else None


def results(only: Mapping[str, Case], processes: int) -> Iterator[tuple[str, torch.Tensor | None]]:
    for name, case in only.items():
        yield name, moved(case, processes)


if __name__ == "__main__":
    folder, rank, processes = Path(sys.argv[1]), os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    names = [name for name in cases() if not sys.argv[2:] or any(part in name for part in sys.argv[2:])]
    for name, value in results({name: cases()[name] for name in names}, processes):
        if value is not None:
            torch.save(value, folder / f"{name}.pt")
    torch.distributed.destroy_process_group()
