"""Optimizer steps under ``torch.cuda.set_sync_debug_mode("error")``: whatever waits for the card raises, and is named.

``sync/step/…`` is the trainer's own part, ``training_step`` on batches of its loader; ``sync/loop/…`` the whole loop
of ``train`` from the third step to the fifth: loader, clipping, optimizer, schedule.  Logging reads numbers by its
nature and is left out. On a CPU the same steps are taken, and nothing is found out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import tiny
import torch
from method_rows import PARAMETERS
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from expunge.method import build
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


def watch(device: torch.device, mode: str) -> None:
    """Make synchronising an ``error``, or again what it is by ``default``."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode(mode)


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


class Watched(TrainerCallback):
    """Watches the steps after ``FIRST`` up to ``LAST``."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.steps = device, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps += FIRST <= state.global_step < LAST
        watch(self.device, "error" if FIRST <= state.global_step < LAST else "default")


def whole_loop(name: str, weights: str, device: torch.device) -> Figures:
    """The trainer's loop; raises where something in it waits for the card."""
    trainer = trainer_of(name, weights, device)
    trainer.add_callback(watched := Watched(device))
    try:
        trainer.train()
    finally:
        watch(device, "default")
    return _done(device, watched.steps)


def one_by_one(name: str, weights: str, device: torch.device) -> Figures:
    """``training_step`` alone; raises where something in it waits for the card."""
    trainer = trainer_of(name, weights, device)
    trainer.combine = trainer.combine.settle(STEPS, lambda _: 1.0)
    trainer.current_gradient_accumulation_steps = 1
    batches = iter(trainer.get_train_dataloader())
    for k in range(LAST):
        (batch,), _ = trainer.get_batch_samples(batches, 1, device)
        watch(device, "error" if k >= FIRST else "default")
        try:
            trainer.training_step(trainer.model, batch)
        finally:
            watch(device, "default")
        trainer.model.zero_grad()
    return _done(device, LAST - FIRST)


def _done(device: torch.device, steps: int) -> Figures:
    if device.type != "cuda":
        raise Skipped(f"{steps} steps were taken; only CUDA can tell whether they wait")
    return {"steps": steps}
