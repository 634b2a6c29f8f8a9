"""Keys and values of a model as rows that can be copied out, repeated and batched again.

Only for models that keep every key and value (``DynamicLayer``); :func:`keeps_all_positions` checks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from expunge.forward import family

SPARE = 64  # columns added to a layer's buffers when they are full

Pair = tuple[Tensor, Tensor]  # keys and values of one layer, (B, H, T, D) each
Row = list[Pair]  # the same of one sequence, layer by layer: (1, H, T, D) each


class GrowingLayer(DynamicLayer):
    """A layer whose keys and values are views of preallocated buffers, so that most updates copy nothing old."""

    buffers: Pair

    def use_buffers(self, buffers: Pair, end: int) -> Pair:
        """Use ``buffers`` (B, H, T, D); returns their first ``end`` columns, the keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(*buffers)
        self.buffers, states = buffers, (buffers[0][:, :, :end], buffers[1][:, :, :end])
        self.keys, self.values = states
        return states

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Pair:
        """Keys and values with the new ones (B, H, t, D) behind them."""
        keys, values = self.buffers
        begin = self.get_seq_length()
        end = begin + key_states.shape[2]
        if end > keys.shape[2]:
            keys, values = (torch.nn.functional.pad(x, (0, 0, 0, end + SPARE - x.shape[2])) for x in (keys, values))
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        return self.use_buffers((keys, values), end)


def empty(model: nn.Module) -> DynamicCache | None:
    """An empty cache that keeps all positions, also those outside a sliding window.

    None where the model builds its own, since it keeps more than keys and values.
    """
    return DynamicCache() if family.by_position(model) else None


def rows_of(cache: Any, mask: Tensor, rows: Tensor) -> tuple[Any, Tensor]:
    """Some ``rows`` (n,) of a cache and of its ``mask`` (B, T), for a cache of any kind."""
    if keeps_all_positions(cache):
        return packed(cache, mask, rows)
    cache.reorder_cache(rows)  # the one row selection that every kind of layer supports
    return cache, mask[rows]


def keeps_all_positions(cache: Any) -> bool:
    """Whether all layers keep the keys and values of all positions."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(
        type(layer) in (DynamicLayer, GrowingLayer) and layer.get_seq_length() > 0 for layer in layers
    )


def row(cache: Any, index: int, begin: int, end: int) -> Row:
    """A copy of the positions from ``begin`` to ``end`` of one sequence."""
    at = (slice(index, index + 1), slice(None), slice(begin, end))
    return [(layer.keys[at].clone(), layer.values[at].clone()) for layer in cache.layers]


def prefix(states: Row, end: int) -> Row:
    """The first ``end`` positions, not copied."""
    return [(keys[:, :, :end], values[:, :, :end]) for keys, values in states]


def length(states: Row) -> int:
    """The number of positions."""
    return states[0][0].shape[2]


def stacked(rows: Sequence[Row], spare: int = SPARE) -> tuple[Cache, Tensor]:
    """Sequences of different lengths as one cache, padded on the left, and the mask (B, T) of what is real.

    ``spare`` more columns can be added without a copy.
    """
    lengths = [length(r) for r in rows]
    width = max(lengths)

    def padded(values: Sequence[Tensor]) -> Tensor:
        out = values[0].new_zeros(len(rows), values[0].shape[1], width + spare, values[0].shape[3])
        for r, value in enumerate(values):
            out[r, :, width - value.shape[2] : width] = value[0]
        return out

    layers = zip(*rows, strict=True)
    cache = _build(((padded([k for k, _ in layer]), padded([v for _, v in layer])) for layer in layers), width)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for r, n in enumerate(lengths):
        mask[r, width - n :] = 1
    return cache, mask.to(rows[0][0][0].device)


def packed(cache: Any, mask: Tensor, rows: Tensor) -> tuple[Cache, Tensor]:
    """:func:`stacked` of ``rows`` (n,) of a cache that may have holes anywhere, by its ``mask`` (B, T)."""
    mask = mask[rows]
    columns = mask.argsort(dim=1, stable=True)[:, mask.shape[1] - int(mask.sum(1).max()) :]

    def padded(values: Tensor) -> Tensor:
        selected = values[rows[:, None], :, columns].transpose(1, 2)  # (n, T, H, D) -> (n, H, T, D)
        return torch.nn.functional.pad(selected, (0, 0, 0, SPARE))

    result = _build(((padded(layer.keys), padded(layer.values)) for layer in cache.layers), columns.shape[1])
    return result, mask.gather(1, columns)


def _build(layer_states: Iterable[Pair], end: int) -> Cache:
    layers = []
    for pair in layer_states:
        layers.append(GrowingLayer())  # type: ignore[no-untyped-call]
        layers[-1].use_buffers(pair, end)
    return Cache(layers=layers)  # type: ignore[arg-type]
