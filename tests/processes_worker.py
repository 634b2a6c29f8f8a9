"""One row of the table of processes: a training in several processes, saved on its way, and what goes on from there.

``python processes_worker.py STRATEGY FOLDER NAMES [BEGIN]`` does it in as many forks as ``WORLD_SIZE`` says.  Each row of
``NAMES`` (with commas; all without) is trained whole, with a checkpoint after step :data:`SAVED`, and once more from that
checkpoint, or, with ``BEGIN``, only from the one that another launch left there.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import traceback
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import shortcuts  # noqa: F401
import tiny
import torch
from launch import in_ranks
from method_rows import IDS, LR, ROWS
from transformers.trainer_callback import PrinterCallback

from expunge import models
from expunge.method import build
from expunge.training import keeper
from expunge.training.arguments import optimized

# Nine rows, four a step: the third step of an epoch has one row, which only one process can have.
EPOCH, STEP, STEPS, SAVED = 9, 4, 4, 2
FSDP2 = {"fsdp": "full_shard", "fsdp_config": {"version": 2}}
STRATEGIES: dict[str, dict[str, Any]] = {"single": {}, "ddp": {}, "fsdp2": FSDP2}
IN_SESSION = {"ddp": ["full/adamw/pdu"], "fsdp2": ["full/adamw/pdu", "lora/asked"]}
HOWS = ("full", "lora", "trainable")
ADAMW = {"optim": "adamw_torch", "learning_rate": 1e-3, "adam_epsilon": 1e-3}
SOPHIA = {
    "gauss_newton": ("blur_npo", {"every": 2, "rho": 300}),
    "hutchinson": ("grad_diff", {"curvature": "hutchinson", "every": 1, "rho": 30}),
    "squared_gradient": ("soul_npo", {"curvature": "squared_gradient", "every": 1, "rho": 30}),
}


def rows() -> dict[str, dict[str, Any]]:
    """Name -> what is trained: every method with full weights, LoRA and some weights; AdamW and Sophia; a holdout set."""
    made: dict[str, dict[str, Any]] = {}
    for how in HOWS:
        for name, (method, own) in zip(IDS, ROWS, strict=True):
            made[f"{how}/{name}"] = {"method": method, "parameters": own, "how": how}
        for name in ("grad_diff", "blur_npo", "pdu"):
            own = dict(ROWS)[name]
            made[f"{how}/adamw/{name}"] = {"method": name, "parameters": own, "how": how, "training": ADAMW}
    for name, (method, sophia) in SOPHIA.items():
        row = {"method": method, "parameters": {}, "how": "full", "sophia": sophia, "training": {"learning_rate": 1e-4}}
        made[f"full/sophia/{name}"] = row
    made["full/holdout"] = {"method": "grad_diff", "parameters": {}, "how": "full", "holdout": True}
    made["full/dropout"] = {"method": "pdu", "parameters": dict(ROWS)["pdu"], "how": "full", "dropout": 0.2}
    for optim in ("rmsprop", "adamw_torch_fused"):
        training = {**ADAMW, "optim": optim}
        made[f"full/{optim}"] = {"method": "blur_npo", "parameters": {}, "how": "full", "training": training}
    recomputed = {"gradient_checkpointing": True}
    made["full/recomputed"] = {"method": "blur_npo", "parameters": {}, "how": "full", "training": recomputed}
    asked = {"save_strategy": "steps", "save_steps": SAVED}
    made["full/asked"] = {"method": "pdu", "parameters": dict(ROWS)["pdu"], "how": "full", "training": asked}
    made["lora/asked"] = made["full/asked"] | {"how": "lora"}
    made["full/tied"] = {"method": "blur_npo", "parameters": {}, "how": "full", "model": {"tie_word_embeddings": True}}
    return made


def file_of(name: str) -> str:
    """What the files of row ``name`` are called."""
    return name.replace("/", "_")


def kinds(names: Iterable[str]) -> dict[str, list[str]]:
    """The rows by what bounds their differences: rounding; rounding and a division by the curvature; chance."""
    made: dict[str, list[str]] = {"first order": [], "Sophia": [], "dropout": []}
    for name in names:
        row = rows()[name]
        second = row.get("sophia") or build(row["method"], row["parameters"]).optimizer
        made["dropout" if row.get("dropout") else "Sophia" if second else "first order"].append(name)
    return made


def trainer(row: dict[str, Any], folder: Path, strategy: str, processes: int) -> Any:
    """A fresh trainer of ``row``, one of ``processes``, that saves after step :data:`SAVED`."""
    sophia = row.get("sophia", {})
    method = optimized(build(row["method"], row["parameters"]), "sophia" if sophia else None, sophia, {})
    net: Any = tiny.model(attention_dropout=row.get("dropout", 0.0), **row.get("model", {}))
    if row["how"] == "lora":
        net = models.attach_lora(net, r=4, alpha=8, dropout=0.0, seed=0)
    elif row["how"] == "trainable":
        models.train_only(net, r"layers\.0\.")  # which RMU can train, too
    given = {"per_device_train_batch_size": STEP // processes, "max_steps": STEPS, "learning_rate": LR}
    several = {"ddp_backend": "gloo", **STRATEGIES[strategy]} if processes > 1 else {}
    more = dict(row.get("training", {}))
    if strategy == "fsdp2" and more.pop("gradient_checkpointing", False):
        several |= {"fsdp_config": {"version": 2, "activation_checkpointing": True}}
    out = str(folder / "checkpoints")
    t = tiny.trainer(method, net, tiny.paired(EPOCH, STEP), out, **given | more | several)
    os.environ.pop("ACCELERATE_USE_FSDP", None)  # accelerate leaves it to the next trainer
    if row.get("holdout"):
        t.holdout = [tiny.example(3000 + i) for i in range(4)]
    t.remove_callback(PrinterCallback)
    t.keeper.plan = keeper.Plan(folder, 3600.0)
    t.keeper._gap = lambda state: 1
    t.keeper._due = lambda state: state.global_step == SAVED
    return t


def trained(row: dict[str, Any], folder: Path, strategy: str, processes: int, begin: Path | None = None) -> Any:
    """(how far the weights moved, the log without its seconds, the combiner's state) in the main process, else None."""
    t = trainer(row, folder, strategy, processes)
    start = t.gathered()
    start = copy.deepcopy(start) if t.args.process_index == 0 else None
    t.train(str(begin) if begin else None)
    net = t.gathered()
    if start is None:
        return None
    log = [{k: v for k, v in line.items() if k not in ("seconds", "train_runtime")} for line in t.state.log_history]
    return tiny.delta(net, start), [line for line in log if "loss" in line], t.combine.state_dict()


def run(names: list[str], folder: Path, strategy: str, begin: Path | None) -> None:
    """What one rank does: leaves ``NAME.pt`` (the whole run's moves) and ``NAME.json`` in ``folder``."""
    folder.mkdir(exist_ok=True)
    size, main = int(os.environ["WORLD_SIZE"]), os.environ["RANK"] == "0"
    for name in names:
        row, own = rows()[name], file_of(name)
        try:
            made = None if begin else trained(row, folder / own, strategy, size)
            (place,) = ((begin or folder) / own).rglob(f"checkpoint-{SAVED}")
            again = trained(row, folder / f"{own}-again", strategy, size, place)
        except Exception:  # the same in all processes: the next row can be trained
            traceback.print_exc()
            continue
        if not main:
            continue
        assert again is not None
        said = {} if made is None else {"same": torch.equal(made[0], again[0]) and made[1:] == again[1:]}
        torch.save((again if made is None else made)[0], folder / f"{own}.pt")
        (folder / f"{own}.json").write_text(json.dumps({**said, "steps": len(again[1])}))


def work(strategy: str, folder: Path, names: list[str], begin: Path | None) -> None:
    run(names, folder, strategy, begin)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    strategy, folder, chosen, *rest = sys.argv[1:]
    names = chosen.split(",") if chosen else list(rows())
    begin = Path(rest[0]).resolve() if rest else None
    sys.exit(in_ranks(partial(work, strategy, Path(folder).resolve(), names, begin)) != 0)
