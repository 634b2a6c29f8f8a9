"""How fast the card multiplies, and how long something takes on it; the arithmetic of a step is :mod:`expunge.plan.work`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from expunge.plan.work import Tokens as Tokens
from expunge.plan.work import operations as operations


def matrix_rate(device: torch.device, size: int = 8192) -> float:
    """Operations a second of a square bf16 product of random matrices: the median of ten after three."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = [timed(lambda: a @ b, device) for _ in range(13)][3:]
    return 2 * size**3 / sorted(seconds)[5]


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(f: Callable[[], Any], device: torch.device) -> float:
    """Seconds of ``f``, the device's work included."""
    synchronize(device)
    began = time.perf_counter()
    f()
    synchronize(device)
    return time.perf_counter() - began
