"""Rows of tokens to padded tensors, and all that a step would otherwise have to ask the device about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from expunge.forward.prefix import shared
from expunge.forward.view import IGNORE


def collate(rows: Sequence[Mapping[str, Any]], *, pad_id: int) -> dict[str, Any]:
    """Rows of streams, or flat rows ``{"input_ids", "labels", "index"}``, padded on the right to the longest of each stream.

    Gives (B, T) ``input_ids``, ``attention_mask``, ``labels``, and what the host knows of them, so that no step has to read
    it back from an accelerator: ``labelled`` (2, N), row and position of what predicts each labelled token; ``real``
    (2, M), row and position of each real token; and, staying on the host, ``index`` and ``lengths``, of each row its number
    and how many of its labelled tokens are predicted, ``prefix``, the number of leading tokens that all rows share, and
    ``padding``, the side of it.  The mask comes from the lengths, never from ``ids != pad``: an end-of-turn token that
    equals the pad token is still attended.  Filler is left out; a batch of nothing else is one row of it, marked as
    ``filler``.
    """
    if "input_ids" not in rows[0]:
        return {stream: collate([r[stream] for r in rows], pad_id=pad_id) for stream in rows[0]}
    whole = [r for r in rows if "filler" not in r]
    rows, filler = (whole, {}) if whole else (rows[:1], {"filler": True})
    long = [len(r["input_ids"]) for r in rows]
    width = max(long)
    predicts = [[t - 1 for t, y in enumerate(r["labels"]) if t and y != IGNORE] for r in rows]
    return {
        "input_ids": _padded([r["input_ids"] for r in rows], width, pad_id),
        "attention_mask": (torch.arange(width) < torch.tensor(long)[:, None]).long(),
        "labels": _padded([r["labels"] for r in rows], width, IGNORE),
        "labelled": _places(predicts),
        "real": _places([range(n) for n in long]),
        "index": tuple(int(r["index"]) for r in rows),
        "lengths": tuple(map(len, predicts)),
        "prefix": shared([r["input_ids"] for r in rows], [r["labels"] for r in rows], IGNORE),
        "padding": "right",
        **filler,
    }


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> torch.Tensor:
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _places(columns: Sequence[Sequence[int]]) -> torch.Tensor:
    """The columns of each row -> (2, n) row and column of each."""
    found = [[i for i, row in enumerate(columns) for _ in row], [t for row in columns for t in row]]
    return torch.tensor(found, dtype=torch.long)


def labelled_tokens(batch: Mapping[str, Any]) -> Sequence[int]:
    """How many labelled tokens of each row are predicted: as :func:`collate` counted them, else read from the labels."""
    lengths: Sequence[int] = batch.get("lengths") or (batch["labels"][:, 1:] != IGNORE).sum(1).tolist()
    return lengths
