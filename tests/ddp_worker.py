"""Several processes: ``ddp_worker.py FOLDER [all]`` leaves there what each training gave, and then (without ``all``) what
the command line did.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import bench_worker
import processes_worker
import sharded_worker
import shortcuts  # noqa: F401
import tiny
import torch
from accelerate.state import AcceleratorState
from launch import in_ranks
from method_rows import IDS, LR, ROWS

from expunge import models
from expunge.method import build
from expunge.training import sharded
from expunge.training.arguments import optimized
from expunge.training.curvature import inner
from expunge.training.utility import Keep

# Nine rows, four a step: the third step of an epoch has one row, which only one process can have.
EPOCH, STEP, STEPS = 9, 4, 4


def row(method: str, parameters: dict[str, Any], **of: Any) -> dict[str, Any]:
    return {"method": method, "parameters": parameters, "sophia": {}, "learning_rate": LR, "how": "full", **of}


# Steps so small that a coordinate whose clipped sign is a matter of rounding moves no other coordinate's gradient.
SMALL = {"learning_rate": 1e-4}
SOPHIA = {
    "blur_npo-gauss_newton": row("blur_npo", {}, sophia={"every": 2, "rho": 300}, **SMALL),
    "grad_diff-hutchinson": row("grad_diff", {}, sophia={"curvature": "hutchinson", "every": 1, "rho": 30}, **SMALL),
    "soul_npo-squared_gradient": row(
        "soul_npo", {}, sophia={"curvature": "squared_gradient", "every": 1, "rho": 30}, **SMALL
    ),
}
OTHERWISE = {
    "blur_npo-lora": row("blur_npo", {}, how="lora"),
    "pdu-lora": row("pdu", {"budget": 3.0, "warmup": 0.0, "multiplier": 2.0}, how="lora"),
    "npo-trainable": row("npo", {}, how=r"layers\.1\."),
    "grad_diff-holdout": row("grad_diff", {}, how="holdout"),
    "gradient_ascent-keep": row("gradient_ascent", {}, how="keep"),  # below at step 4: back to step 3
    "blur_npo-memory": row("blur_npo", {}, how="memory"),  # the last process has memory for one row from step 2 on
    "pdu-memory": row("pdu", {"budget": 3.0, "warmup": 0.0, "multiplier": 2.0}, how="memory"),
}
FIRST_ORDER = {name: row(*of) for name, of in zip(IDS, ROWS, strict=True) if not build(*of).optimizer} | OTHERWISE
KEEP = Keep(0.975, tiny.examples(7000, 6), every=1)
# One for each way through the trainer: a Gramian, a multiplier, each kind of reference, a negation, two streams in a loss.
FEW = [
    "npo", "npo+retain=kl", "blur_npo", "pdu+budget=3.0+warmup=0.0+multiplier=2.0", "idk_dpo", "undial",
    "task_vector+scale=0.5", next(name for name in IDS if name.startswith("rmu+")), *OTHERWISE,
]  # fmt: skip


def left_by(row: dict[str, Any], processes: int = 1) -> dict[str, torch.Tensor]:
    """Train ``row`` in one of ``processes``: the flat step, and under Sophia the momentum and curvature behind its last."""
    sophia, how = row["sophia"], row["how"]
    method = optimized(build(row["method"], row["parameters"]), "sophia" if sophia else None, sophia, {})

    def fresh() -> Any:
        net: Any = tiny.model()
        if how == "lora":
            return models.attach_lora(net, r=4, alpha=8)
        if how not in ("full", "holdout", "memory", "keep"):
            models.train_only(net, how)
        return net

    several = {"ddp_backend": "gloo"} if processes > 1 else {}
    t = tiny.trainer(
        method,
        fresh(),
        learning_rate=row["learning_rate"],
        data=tiny.paired(EPOCH, STEP),
        per_device_train_batch_size=STEP // processes,
        max_steps=STEPS + (how == "holdout"),  # which ends it
        **several,
    )
    if how == "holdout":
        t.holdout = [tiny.example(3000 + i) for i in range(4)]
    if how == "keep":
        t.keep = KEEP
    if how == "memory" and processes > 1 and os.environ["RANK"] == str(processes - 1):
        t.objective_loss = partial(out_of_memory, t, t.objective_loss)
    t.train()
    trained = t.accelerator.unwrap_model(t.model)
    out = {
        "moved": tiny.delta(trained, fresh()),
        "steps": torch.tensor(t.state.global_step),
        "micro": torch.tensor(t.fit.rows),
    }
    if sophia:
        state = inner(t.optimizer).state
        for name in ("momentum", "curvature"):
            out[name] = torch.cat([state[p][name].flatten() for p in trained.parameters()])
    return out


def out_of_memory(t: Any, loss: Any, name: str, model: Any, inputs: Any) -> Any:
    if name == "retain" and t.state.global_step >= 1 and len(inputs["retain"]["labels"]) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return loss(name, model, inputs)


def work(folder: Path, whole: bool) -> None:
    """What one rank does."""
    AcceleratorState._reset_state(reset_partial_state=True)  # that of the process it is a fork of
    rank, size = os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    everything = FIRST_ORDER | SOPHIA
    for name in everything if whole else [*FEW, *SOPHIA]:
        torch.save(left_by(everything[name], size), folder / f"{name.replace('/', '_')}.{rank}.pt")
    if not whole:
        for strategy, names in processes_worker.IN_SESSION.items():
            if strategy != "fsdp2" or sharded.runs_on_cpu():
                processes_worker.run(names, folder / strategy, strategy, None)
    if not whole and sharded.runs_on_cpu():
        sharded_worker.run(sharded_worker.IN_SESSION, folder / "sharded", 2)
    torch.distributed.destroy_process_group()
    if not whole:
        bench_worker.run(folder / "bench", rank)


if __name__ == "__main__":
    sys.exit(in_ranks(partial(work, Path(sys.argv[1]).resolve(), sys.argv[2:] == ["all"])) != 0)
