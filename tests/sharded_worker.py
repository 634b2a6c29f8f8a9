"""Several processes: ``python sharded_worker.py FOLDER NAMES`` trains cases and leaves there how far the weights moved.
On one process, which shards nothing, the same are what the others are compared with.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import shortcuts  # noqa: F401
import tiny
import torch
from launch import in_ranks
from method_rows import IDS, LR, PARAMETERS, ROWS

from expunge.forward.family import local
from expunge.method import build
from expunge.models import attach_lora
from expunge.training import gradients
from expunge.training.arguments import optimized
from expunge.training.utility import Keep

GLOBAL_BATCH = 8
IN_SESSION = (
    "full-blur_npo",
    "lora-blur_npo",
    "full-pdu+budget=0.1+retain=kl+warmup=0.0+multiplier=2.0",
    "copy-rmu",
    "keep",
)
FSDP2 = {"ddp_backend": "gloo", "fsdp": "full_shard", "fsdp_config": {"version": 2}}


@dataclass(frozen=True)
class Case:
    """A training: ``rows`` of the forget set in steps of :data:`GLOBAL_BATCH`, each cut into ``parts``."""

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    lora: bool = False
    rank: int = 4
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
    made["rank-1"] = Case("blur_npo", lora=True, rank=1, training=ADAMW)  # all but one process have none of a factor
    made["keep"] = Case("gradient_ascent", prepared="guarded", training={"max_steps": 6})
    made["copy-undial"] = Case("undial", {"retain": "js"}, prepared="live_reference")
    made["copy-rmu"] = Case("rmu", PARAMETERS["rmu"], prepared="live_reference")
    made["off-undial"] = Case("undial", {"retain": "js"}, lora=True, prepared="live_reference")
    return made


def live_reference(t: Any) -> None:
    """Put a frozen copy, or the model with its adapter off, in place of what was cached of the reference."""
    from expunge.training.reference import frozen_copy, has_adapter

    whole = None if has_adapter(t.model) else t.shards.frozen_copy() if t.shards else frozen_copy(t.model)
    t.reference = replace(t.reference, hidden=None, activations=None, copy=whole)


def guarded(t: Any) -> None:
    """A utility guard that the sixth step crosses: back to the fourth."""
    t.keep = Keep(0.975, tiny.examples(7000, 6), every=2)


def moved(case: Case, processes: int) -> torch.Tensor | None:
    """How far training moves the weights, flat, in the main process; None in the others."""
    model = tiny.model(**case.model)
    if case.lora:
        model = attach_lora(model, r=case.rank, alpha=8, dropout=0.0, seed=0)
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


def bytes_held(t: Any) -> dict[str, int]:
    """What this process holds between two steps: its part of the weights, of their gradients and of the moments."""
    params = gradients.trained(t.model)
    state = [v for p in params for v in t.optimizer.state.get(p, {}).values() if torch.is_tensor(v)]
    grads = [local(p) for p in params]  # one buffer an objective: as large as what trains
    parts = {"weights": [local(p) for p in t.model.parameters()], "gradient": grads, "moments": map(local, state)}
    return {name: sum(x.numel() * x.element_size() for x in found) for name, found in parts.items()}


def run(names: Iterable[str], folder: Path, processes: int) -> None:
    """Train the cases ``names``, and leave in ``folder`` how far the weights moved."""
    folder.mkdir(exist_ok=True)
    for name in names:
        value = moved(cases()[name], processes)
        os.environ.pop("ACCELERATE_USE_FSDP", None)  # accelerate leaves it to the next trainer
        if value is not None:
            torch.save(value, folder / f"{name}.pt")


def work(folder: Path, names: list[str]) -> None:
    """What one rank does."""
    run(names, folder, int(os.environ["WORLD_SIZE"]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(in_ranks(partial(work, Path(sys.argv[1]), sys.argv[2:])) != 0)
