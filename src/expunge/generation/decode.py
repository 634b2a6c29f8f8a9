"""Greedy decoding from a known prefix: the tokens generated so far, and the keys and values of all but the last.

Scoring a reference answer also gives the greedy answer up to the first token where the two differ, so decoding starts
there.  Finished rows leave the batch.  The last few rows, which often repeat themselves, use prompt-lookup drafts: the
tokens that followed the same two tokens before.  The model reads a whole draft at once; tokens that greedy decoding would
not have chosen are dropped.  The tokens are those of ``generate(do_sample=False)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.forward.view import logits_at
from expunge.generation import cache as caches

SHRINK_SHARE = 0.125  # share of finished rows from which a batch is made smaller, which copies the others
STEP_TOKENS = 8  # tokens that a step reads in little more than the time of one; shared by the rows
MAX_HOLES = 64  # columns of dropped drafts before the rows are packed again
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
    """An answer so far: its ``tokens``, the last of which the model has not read; ``keys``: keys and values of the others.

    ``limit`` tokens at most; ``is_complete(tokens)`` says whether the answer is complete.
    """

    tokens: tuple[int, ...]
    keys: caches.Row
    limit: int
    is_complete: Callable[[Sequence[int]], bool]


def plainly_greedy(model: nn.Module) -> bool:
    """Whether greedy decoding of ``model`` takes the largest logit, untouched by its generation settings."""
    settings = getattr(model, "generation_config", None)
    return all(getattr(settings, name, None) in (None, value) for name, value in NEUTRAL.items())


@torch.no_grad()
def decode(model: nn.Module, starts: Sequence[Start]) -> list[tuple[int, ...]]:
    """The whole answer of each start, in order; an answer that ends with an end token keeps it."""
    out = [list(s.tokens) for s in starts]
    alive = [i for i, s in enumerate(starts) if not _finished(s, out[i])]
    if not alive:
        return [tuple(tokens) for tokens in out]
    cache, mask = caches.stacked([starts[i].keys for i in alive])
    over = [False] * len(alive)
    while True:
        rows = [
            []
            if end
            else [out[i][-1], *draft(out[i], min(STEP_TOKENS // len(alive), starts[i].limit - len(out[i])) - 1)]
            for i, end in zip(alive, over, strict=True)
        ]
        best = _greedy_tokens(model, rows, mask, cache)
        new = [_accept(out[i], starts[i], read[1:], b) for i, read, b in zip(alive, rows, best, strict=True)]
        mask = torch.cat([mask, _leading_ones(new, max(map(len, rows)), mask)], 1)
        over = [_finished(starts[i], out[i]) for i in alive]
        stay = [r for r, end in enumerate(over) if not end]
        if not stay:
            return [tuple(tokens) for tokens in out]
        if sum(over) >= SHRINK_SHARE * len(alive) or mask.shape[1] > int(mask.sum(1).max()) + MAX_HOLES:
            cache, mask = caches.packed(cache, mask, torch.tensor(stay, device=mask.device))
            alive, over = [alive[r] for r in stay], [False] * len(stay)


def draft(tokens: Sequence[int], n: int) -> list[int]:
    """The next ``n`` tokens, copied from where the last two tokens occurred before; a loop is continued.

    >>> draft([5, 1, 2, 3, 1, 2], 5)
    [3, 1, 2, 3, 1]
    """
    end = tuple(tokens[-2:])
    at = next((t for t in range(len(tokens) - 1, 1, -1) if tuple(tokens[t - 2 : t]) == end), None)
    if n <= 0 or at is None:
        return []
    extended = list(tokens)
    for t in range(at, at + n):
        extended.append(extended[t])
    return extended[len(tokens) :]


def _finished(start: Start, tokens: Sequence[int]) -> bool:
    """Whether the answer is complete or at its limit."""
    return len(tokens) >= start.limit or start.is_complete(tokens)


def _accept(tokens: list[int], start: Start, drafted: Sequence[int], best: Sequence[int]) -> int:
    """Append the greedy tokens ``best`` (d + 1,) to ``tokens`` as far as the draft (d,) agrees; returns their number."""
    n_before = len(tokens)
    for t, token in enumerate(best):
        tokens.append(token)
        if _finished(start, tokens) or drafted[t : t + 1] != [token]:
            break
    return len(tokens) - n_before


def _greedy_tokens(model: nn.Module, rows: Sequence[Sequence[int]], mask: Tensor, cache: Any) -> list[list[int]]:
    """The likeliest token after each token of ``rows``, which continue the ``cache`` with its ``mask``."""
    lengths, width = [len(r) for r in rows], max(map(len, rows))
    real = _leading_ones(lengths, width, mask)
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


def _leading_ones(counts: Sequence[int], width: int, mask: Tensor) -> Tensor:
    """(B,) -> (B, width): ones at the first ``counts``, then zeros."""
    columns = torch.arange(width, device=mask.device)
    return (columns < torch.tensor(counts, device=mask.device)[:, None]).to(mask.dtype)
