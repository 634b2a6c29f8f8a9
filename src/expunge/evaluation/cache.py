"""Keys and values of a model as rows that can be taken out, repeated and put together again.

Only for models that keep every key and value (``DynamicLayer``); :func:`plain` says whether a cache is of that kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

Pair = tuple[Tensor, Tensor]  # keys and values of one layer, (B, H, T, D) each
Row = list[Pair]  # the same of one sequence, layer by layer: (1, H, T, D) each


def empty() -> DynamicCache:
    """A cache that keeps all positions, whatever window a model's layers look through."""
    return DynamicCache()


def plain(cache: Any) -> bool:
    """Whether all layers keep the keys and values of all positions."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(type(layer) is DynamicLayer and layer.get_seq_length() > 0 for layer in layers)


def select(cache: Any, rows: Tensor) -> DynamicCache:
    """A new cache of ``rows`` (n,) of ``cache``, in that order, some perhaps several times; ``cache`` stays as it is."""
    return _made((layer.keys[rows], layer.values[rows]) for layer in cache.layers)


def row(cache: Any, index: int, columns: Tensor) -> Row:
    """The positions ``columns`` (T,) of one sequence."""
    return [
        (layer.keys[index : index + 1, :, columns], layer.values[index : index + 1, :, columns])
        for layer in cache.layers
    ]


def stacked(rows: Sequence[Row]) -> tuple[DynamicCache, Tensor]:
    """Sequences of different lengths as one cache, padded on the left, and the mask (B, T) of what is real."""
    lengths = [r[0][0].shape[2] for r in rows]
    width = max(lengths)
    device = rows[0][0][0].device
    mask = (torch.arange(width, device=device) >= width - torch.tensor(lengths, device=device)[:, None]).long()
    return _made(
        (torch.cat([_padded(k, width) for k, _ in layer]), torch.cat([_padded(v, width) for _, v in layer]))
        for layer in zip(*rows, strict=True)
    ), mask


def repeated(one: Row, times: int) -> DynamicCache:
    """One sequence as a cache of ``times`` equal ones."""
    return _made((k.expand(times, -1, -1, -1), v.expand(times, -1, -1, -1)) for k, v in one)


def _padded(value: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(value, (0, 0, width - value.shape[2], 0))


def _made(layers: Any) -> DynamicCache:
    cache = DynamicCache()
    for i, (keys, values) in enumerate(layers):
        cache.update(keys, values, i)
    return cache
