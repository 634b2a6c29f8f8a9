"""How a run would train: rows of a step, steps, number format, optimizer; from its settings alone, for any machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from expunge.data.example import Example
from expunge.forward.view import IGNORE
from expunge.method import Method
from expunge.training import arguments, shares
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Setup:
    """What decides memory and time beside the model and the method.

    ``rows``: of each stream in a process's micro-batch; ``accumulation``: micro-batches of an optimizer step;
    ``sharded``: FSDP2; ``autocast``: steps compute in 16 bits; ``gpu``: weights are on an accelerator, apart from main
    memory; ``curvature``: Sophia's estimator.
    """

    rows: int
    accumulation: int
    steps: int
    processes: int = 1
    sharded: bool = False
    autocast: bool = False
    gpu: bool = False
    checkpointing: bool = False
    optimizer: str = "adamw_torch"
    curvature: str | None = None
    quantize: str | None = None

    @property
    def step_rows(self) -> int:
        """Rows of each stream in an optimizer step of all processes."""
        return self.rows * self.accumulation * self.processes


def on_gpu(settings: Recipe, memory: float | None) -> bool:
    """Whether the run is planned for an accelerator: one of a stated ``memory``, or one that is here."""
    import torch

    if settings.device == "cpu" or str(settings.training.get("use_cpu", "")).lower() == "true":
        return False
    return memory is not None or torch.accelerator.is_available()


def setup(settings: Recipe, method: Method, forget_rows: int, *, gpu: bool, processes: int) -> Setup:
    """How ``settings`` would train with so many rows to forget: suited defaults under what the user gave.

    Raises InputError for training arguments that do not fit.
    """
    given = arguments.parsed(settings.training)
    suited = arguments.defaults(method, forget_rows, lora=settings.adapter == "lora") | _suited(method, gpu=gpu)
    whole = shares.divided(suited, given, forget_rows, processes) | given
    rows, parts = int(whole["per_device_train_batch_size"]), int(whole["gradient_accumulation_steps"])
    batches = math.ceil(forget_rows / (rows * processes))
    most = int(whole.get("max_steps") or -1)
    fsdp = whole.get("fsdp") not in (None, "", [], False)
    return Setup(
        rows=min(rows, forget_rows),
        accumulation=parts,
        steps=most if most > 0 else math.ceil(float(whole["num_train_epochs"]) * math.ceil(batches / parts)),
        processes=processes,
        sharded=fsdp,
        autocast=bool(whole.get("bf16") or whole.get("fp16")),
        gpu=gpu,
        checkpointing=bool(whole.get("gradient_checkpointing")) or _checkpointed(whole.get("fsdp_config")),
        optimizer="sophia" if method.optimizer else str(getattr(whole["optim"], "value", whole["optim"])),
        curvature=method.optimizer.curvature if method.optimizer else None,
        quantize=getattr(settings, "quantize", None),
    )


def _suited(method: Method, *, gpu: bool) -> dict[str, Any]:
    """The defaults that depend on the machine, as they are on the one that is planned for."""
    exact = method.optimizer is not None and method.optimizer.curvature == "hutchinson"
    return {"optim": "adamw_torch_fused", "bf16": not exact} if gpu else {"optim": "adamw_torch", "bf16": False}


def _checkpointed(config: Any) -> bool:
    """Whether ``fsdp_config``, a table or its text, switches activation checkpointing on."""
    if isinstance(config, str):
        with suppress(ValueError):
            config = json.loads(config)
    return isinstance(config, Mapping) and bool(config.get("activation_checkpointing"))


# -- rows -------------------------------------------------------------------------------------------------------------------
def stated(streams: Sequence[str], rows: int, tokens: int, answer: int) -> dict[str, list[Example]]:
    """Rows of data that is not here: all of the same length, the last tokens labelled."""
    labels = (*[IGNORE] * (tokens - answer), *[0] * answer)
    return {stream: [Example((0,) * tokens, labels)] * rows for stream in streams}


def longest(examples: Sequence[Example], rows: int) -> list[Example]:
    """The micro-batch that takes most memory: the longest rows."""
    return sorted(examples, key=lambda e: len(e.input_ids), reverse=True)[:rows]


def average(examples: Sequence[Example]) -> tuple[float, float]:
    """(tokens, labelled tokens that are predicted) of a row, on average."""
    n = max(1, len(examples))
    return (
        sum(len(e.input_ids) for e in examples) / n,
        sum(sum(y != IGNORE for y in e.labels[1:]) for e in examples) / n,
    )
