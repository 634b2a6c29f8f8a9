"""Keys and values of a model as rows that can be taken out, repeated and put together again.

Only for models that keep every key and value (``DynamicLayer``); :func:`plain` says whether a cache is of that kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from expunge.forward import family

SPARE = 64  # columns that a growing layer is made larger by

Pair = tuple[Tensor, Tensor]  # keys and values of one layer, (B, H, T, D) each
Row = list[Pair]  # the same of one sequence, layer by layer: (1, H, T, D) each


class Growing(DynamicLayer):
    """A layer with room behind its keys and values, where new ones are written: a copy now and then, not each time."""

    rooms: Pair

    def hold(self, rooms: Pair, end: int) -> Pair:
        """Take ``rooms`` (B, H, T, D), of which the first ``end`` columns are keys and values: those."""
        if not self.is_initialized:
            self.lazy_initialization(*rooms)
        self.rooms, held = rooms, (rooms[0][:, :, :end], rooms[1][:, :, :end])
        self.keys, self.values = held
        return held

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Pair:
        """Keys and values with the new ones (B, H, t, D) behind them."""
        keys, values = self.rooms
        begin = self.get_seq_length()
        end = begin + key_states.shape[2]
        if end > keys.shape[2]:
            keys, values = (torch.nn.functional.pad(x, (0, 0, 0, end + SPARE - x.shape[2])) for x in (keys, values))
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        return self.hold((keys, values), end)


def empty(model: nn.Module) -> DynamicCache | None:
    """A cache that keeps all positions, whatever window a model's layers look through.

    None where the model makes its own, since it keeps more than keys and values.
    """
    return DynamicCache() if family.by_position(model) else None


def rows_of(cache: Any, mask: Tensor, rows: Tensor) -> tuple[Any, Tensor]:
    """Some ``rows`` (n,) of a cache and of its ``mask`` (B, T), whatever the cache holds."""
    if plain(cache):
        return packed(cache, mask, rows)
    cache.reorder_cache(rows)  # the one operation that every kind of layer does to all that it keeps
    return cache, mask[rows]


def plain(cache: Any) -> bool:
    """Whether all layers keep the keys and values of all positions."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(
        type(layer) in (DynamicLayer, Growing) and layer.get_seq_length() > 0 for layer in layers
    )


def row(cache: Any, index: int, begin: int, end: int) -> Row:
    """A copy of the positions from ``begin`` to ``end`` of one sequence."""
    at = (slice(index, index + 1), slice(None), slice(begin, end))
    return [(layer.keys[at].clone(), layer.values[at].clone()) for layer in cache.layers]


def beginning(one: Row, end: int) -> Row:
    """The first ``end`` positions, not copied."""
    return [(keys[:, :, :end], values[:, :, :end]) for keys, values in one]


def length(one: Row) -> int:
    """How many positions there are."""
    return one[0][0].shape[2]


def stacked(rows: Sequence[Row], spare: int = SPARE) -> tuple[Cache, Tensor]:
    """Sequences of different lengths as one cache, padded on the left, and the mask (B, T) of what is real.

    ``spare`` more columns can be added without a copy.
    """
    lengths = [length(r) for r in rows]
    width = max(lengths)

    def room(values: Sequence[Tensor]) -> Tensor:
        out = values[0].new_zeros(len(rows), values[0].shape[1], width + spare, values[0].shape[3])
        for r, value in enumerate(values):
            out[r, :, width - value.shape[2] : width] = value[0]
        return out

    layers = zip(*rows, strict=True)
    made = _made(((room([k for k, _ in layer]), room([v for _, v in layer])) for layer in layers), width)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for r, n in enumerate(lengths):
        mask[r, width - n :] = 1
    return made, mask.to(rows[0][0][0].device)


def packed(cache: Any, mask: Tensor, rows: Tensor) -> tuple[Cache, Tensor]:
    """:func:`stacked` of ``rows`` (n,) of a cache that may have holes anywhere, by its ``mask`` (B, T)."""
    mask = mask[rows]
    columns = mask.argsort(dim=1, stable=True)[:, mask.shape[1] - int(mask.sum(1).max()) :]

    def room(values: Tensor) -> Tensor:
        kept = values[rows[:, None], :, columns].transpose(1, 2)  # (n, T, H, D) -> (n, H, T, D)
        return torch.nn.functional.pad(kept, (0, 0, 0, SPARE))

    made = _made(((room(layer.keys), room(layer.values)) for layer in cache.layers), columns.shape[1])
    return made, mask.gather(1, columns)


def _made(rooms: Iterable[Pair], end: int) -> Cache:
    layers = []
    for pair in rooms:
        layers.append(Growing())  # type: ignore[no-untyped-call]
        layers[-1].hold(pair, end)
    return Cache(layers=layers)  # type: ignore[arg-type]
