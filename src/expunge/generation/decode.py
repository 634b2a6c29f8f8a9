"""Greedy answers from where the model is already known to be: its keys and values, and the tokens it has said so far.

Scoring a right answer tells what greedy decoding says up to the first token where the two part ways, so decoding starts
there.  Rows that are done leave the batch.  The last few, which often say the same again and again, draft what they said
after the same two tokens before; the model reads a whole draft at once, and what it would not have said itself is dropped.
The tokens are those of ``generate(do_sample=False)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.forward.view import logits_at
from expunge.generation import cache as caches

LEAVE = 0.125  # of the rows in a batch are done before it is made smaller, which copies the rest
ROOM = 8  # tokens that a step reads in little more than the time of one; rows share them
HOLES = 64  # columns of dropped drafts before the rows are packed again
NEUTRAL = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "num_beams": 1,
}


@dataclass(frozen=True)
class Start:
    """An answer so far: ``said`` its tokens, the last of which the model has not read; ``keys`` of all before it.

    ``limit`` tokens at most; ``done(tokens)`` says whether the answer has come to its end.
    """

    said: tuple[int, ...]
    keys: caches.Row
    limit: int
    done: Callable[[Sequence[int]], bool]


def plainly_greedy(model: nn.Module) -> bool:
    """Whether greedy decoding of ``model`` takes the largest logit, untouched by its generation settings."""
    settings = getattr(model, "generation_config", None)
    return all(getattr(settings, name, None) in (None, value) for name, value in NEUTRAL.items())


@torch.no_grad()
def decode(model: nn.Module, starts: Sequence[Start]) -> list[tuple[int, ...]]:
    """The whole answer of each start, in order; an answer that ends with an end token keeps it."""
    out = [list(s.said) for s in starts]
    alive = [i for i, s in enumerate(starts) if not _over(s, out[i])]
    if not alive:
        return [tuple(said) for said in out]
    cache, mask = caches.stacked([starts[i].keys for i in alive])
    over = [False] * len(alive)
    while True:
        rows = [
            [] if end else [out[i][-1], *draft(out[i], min(ROOM // len(alive), starts[i].limit - len(out[i])) - 1)]
            for i, end in zip(alive, over, strict=True)
        ]
        best = _best(model, rows, mask, cache)
        new = [_say(out[i], starts[i], read[1:], b) for i, read, b in zip(alive, rows, best, strict=True)]
        mask = torch.cat([mask, _first(new, max(map(len, rows)), mask)], 1)
        over = [_over(starts[i], out[i]) for i in alive]
        stay = [r for r, end in enumerate(over) if not end]
        if not stay:
            return [tuple(said) for said in out]
        if sum(over) >= LEAVE * len(alive) or mask.shape[1] > int(mask.sum(1).max()) + HOLES:
            cache, mask = caches.packed(cache, mask, torch.tensor(stay, device=mask.device))
            alive, over = [alive[r] for r in stay], [False] * len(stay)


def draft(said: Sequence[int], n: int) -> list[int]:
    """The ``n`` tokens after the last two, as they followed them before; a loop goes round in it.

    >>> draft([5, 1, 2, 3, 1, 2], 5)
    [3, 1, 2, 3, 1]
    """
    end = tuple(said[-2:])
    at = next((t for t in range(len(said) - 1, 1, -1) if tuple(said[t - 2 : t]) == end), None)
    if n <= 0 or at is None:
        return []
    on = list(said)
    for t in range(at, at + n):
        on.append(on[t])
    return on[len(said) :]


def _over(start: Start, said: Sequence[int]) -> bool:
    """Whether there is nothing left to say."""
    return len(said) >= start.limit or start.done(said)


def _say(said: list[int], start: Start, drafted: Sequence[int], best: Sequence[int]) -> int:
    """Add the likeliest tokens (d + 1,) to ``said`` as far as the draft (d,) before them is what was said; how many."""
    before = len(said)
    for t, token in enumerate(best):
        said.append(token)
        if _over(start, said) or drafted[t : t + 1] != [token]:
            break
    return len(said) - before


def _best(model: nn.Module, rows: Sequence[Sequence[int]], mask: Tensor, cache: Any) -> list[list[int]]:
    """The likeliest token after each token of ``rows``, which go on from the ``cache`` and its ``mask``."""
    lengths, width = [len(r) for r in rows], max(map(len, rows))
    real = _first(lengths, width, mask)
    ids = torch.tensor([[*r, *[0] * (width - len(r))] for r in rows], device=mask.device)
    logits, _ = logits_at(
        model,
        real.bool(),
        input_ids=ids,
        attention_mask=torch.cat([mask, real], 1),
        position_ids=(mask.sum(1, keepdim=True) + torch.arange(width, device=mask.device)) * real,
        cache=cache,
        use_cache=True,
    )
    return [b.tolist() for b in logits.argmax(-1).split(lengths)]


def _first(counts: Sequence[int], width: int, mask: Tensor) -> Tensor:
    """(B,) -> (B, width): ones at the first ``counts``, then zeros."""
    columns = torch.arange(width, device=mask.device)
    return (columns < torch.tensor(counts, device=mask.device)[:, None]).to(mask.dtype)
