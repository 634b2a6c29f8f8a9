"""The learning rate's warm-up: its first step is above 0."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def from_above_zero(schedule: Any, warmup: int) -> None:
    """Move the warm-up of ``schedule`` (one of transformers', a ``LambdaLR``) one step on, so that it begins above 0.

    transformers' first step has the learning rate 0 and moves nothing, with ``max_steps=1`` nothing at all.  Here step k of
    a warm-up over w steps has k/w of the rate; after the warm-up all is as it was.
    """
    shapes = getattr(schedule, "lr_lambdas", [])
    if warmup < 1 or not shapes or any(shape is None or shape(0) for shape in shapes):
        return
    schedule.lr_lambdas = [partial(_warmed, shape, warmup) for shape in shapes]
    rates = [base * shape(0) for base, shape in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def _warmed(shape: Callable[[int], float], warmup: int, step: int) -> float:
    if step >= warmup:
        try:
            return shape(step)
        except ZeroDivisionError:  # polynomial, where no step is left after the warm-up
            return 0.0
    return 1.0 if step == warmup - 1 else shape(step + 1)
