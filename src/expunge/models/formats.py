"""Weights that train in float32 and are saved in another number format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from expunge.forward import family


@torch.no_grad()
def round_to(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights of ``model`` to what ``dtype`` holds; they stay in the format that they are in.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 1.001)
    >>> round_to(layer, torch.bfloat16)
    >>> layer.weight.item(), layer.weight.dtype
    (1.0, torch.float32)
    """
    family.reshard(model)
    for p in model.parameters():
        if p.is_floating_point():
            weights = family.local(p)
            weights.copy_(weights.to(dtype))


@contextmanager
def in_format(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """While open, the weights of ``model`` are in ``dtype``, to be saved so; afterwards in their own again.  None: as they
    are.
    """
    own = [(p, p.dtype) for p in model.parameters() if p.is_floating_point()] if dtype else []
    for p, _ in own:
        p.data = p.data.to(dtype)
    try:
        yield
    finally:
        for p, before in own:
            p.data = p.data.to(before)
