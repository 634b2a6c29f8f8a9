"""Rows of tokens to padded tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from expunge.forward.prefix import shared
from expunge.forward.view import IGNORE


def collate(rows: Sequence[Mapping[str, Any]], *, pad_id: int) -> dict[str, Any]:
    """Rows of streams, or flat rows ``{"input_ids", "labels", "index"}``, padded on the right to the longest of each stream.

    Gives (B, T) ``input_ids``, ``attention_mask``, ``labels``, (B,) ``index``, and ``prefix``, the number of leading tokens
    that all rows share.  The mask comes from the lengths, never from ``ids != pad``: an end-of-turn token that equals the
    pad token is still attended.  Filler is left out; a batch of nothing else is one row of it, marked as ``filler``.
    """
    if "input_ids" not in rows[0]:
        return {stream: collate([r[stream] for r in rows], pad_id=pad_id) for stream in rows[0]}
    real = [r for r in rows if "filler" not in r]
    rows, filler = (real, {}) if real else (rows[:1], {"filler": True})
    lengths = torch.tensor([len(r["input_ids"]) for r in rows])
    width = int(lengths.max())
    return {
        "input_ids": _padded([r["input_ids"] for r in rows], width, pad_id),
        "attention_mask": (torch.arange(width) < lengths[:, None]).long(),
        "labels": _padded([r["labels"] for r in rows], width, IGNORE),
        "index": torch.tensor([r["index"] for r in rows]),
        "prefix": shared([r["input_ids"] for r in rows], [r["labels"] for r in rows], IGNORE),
        **filler,
    }


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> torch.Tensor:
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
