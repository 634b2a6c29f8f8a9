"""Optimizer steps under ``torch.cuda.set_sync_debug_mode("error")``: whatever waits for the card raises, and is named.

``sync/step/…`` is the trainer's own part, ``training_step`` on batches of its loader; ``sync/loop/…`` the whole loop
of ``train`` from the third step to the fifth: loader, clipping, optimizer, schedule.  Logging reads numbers by its
nature and is left out. On a CPU the same steps are taken, and nothing is found out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import tiny
import torch
from method_rows import PARAMETERS
from transformers.trainer_callback import PrinterCallback

from expunge.method import build
from expunge.training import waits
from perf.gpu.contract import start
from perf.gpu.rows import Figures, Row, Skipped

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "grad_diff": ("grad_diff", {}),
    "pdu": ("pdu", PARAMETERS["pdu"]),
    "npo": ("npo", {}),
    "npo_kl": ("npo", {"retain": "kl"}),
    "blur_npo": ("blur_npo", {}),
    "rmu": ("rmu", PARAMETERS["rmu"]),
}
STEPS, FIRST, LAST = 6, 2, 5  # warm up, watch from the end of the 2nd step to that of the 5th


def rows(device: torch.device) -> Iterator[Row]:
    """``sync/step/METHOD/WEIGHTS`` and ``sync/loop/METHOD/WEIGHTS``."""
    for kind, measure in (("step", one_by_one), ("loop", whole_loop)):
        for name in METHODS:
            for weights in ("full", "lora"):
                yield Row(f"sync/{kind}/{name}/{weights}", partial(measure, name, weights, device))


def trainer_of(name: str, weights: str, device: torch.device) -> Any:
    """A trainer of six steps, one epoch, that logs at its end only."""
    method, parameters = METHODS[name]
    kw = {
        "max_steps": STEPS,
        "logging_steps": 1000,
        "optim": "adamw_torch",
        "max_grad_norm": 1.0,
        "learning_rate": 1e-3,
    }
    data = tiny.paired(n=4 * (STEPS + 2))
    trainer = tiny.trainer(build(method, parameters), start(weights), data, use_cpu=device.type == "cpu", **kw)
    trainer.remove_callback(PrinterCallback)
    return trainer


def whole_loop(name: str, weights: str, device: torch.device) -> Figures:
    """The trainer's loop; raises where something in it waits for the card."""
    trainer = trainer_of(name, weights, device)
    with waits.ErrorWhereItWaits(FIRST, LAST) as check:
        trainer.add_callback(check)
        trainer.train()
    return _figures(device, check.checked)


def one_by_one(name: str, weights: str, device: torch.device) -> Figures:
    """``training_step`` alone; raises where something in it waits for the card."""
    trainer = trainer_of(name, weights, device)
    trainer.combine = trainer.combine.settle(STEPS, lambda _: 1.0)
    trainer.current_gradient_accumulation_steps = 1
    batches = iter(trainer.get_train_dataloader())
    for k in range(LAST):
        (batch,), _ = trainer.get_batch_samples(batches, 1, device)
        with waits.forbidden(device) if k >= FIRST else nullcontext():
            trainer.training_step(trainer.model, batch)
        trainer.model.zero_grad()
    return _figures(device, LAST - FIRST)


def _figures(device: torch.device, steps: int) -> Figures:
    if device.type != "cuda":
        raise Skipped("the steps were taken; only CUDA can tell whether they wait")
    if steps != LAST - FIRST:
        raise AssertionError(f"{steps} steps were checked, not {LAST - FIRST}")
    return {"steps": steps}
