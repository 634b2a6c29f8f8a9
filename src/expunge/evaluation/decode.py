"""Greedy answers from where the model is already known to be: its keys and values, and the tokens it has said so far.

Scoring a right answer tells what greedy decoding says up to the first token where the two part ways, so decoding starts
there.  Rows that are done leave the batch; the tokens are those of ``generate(do_sample=False)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.evaluation import cache as caches
from expunge.forward import logits_at

LEAVE = 0.125  # of the rows in a batch are done before it is made smaller, which copies the rest
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


def finished(start: Start) -> bool:
    """Whether there is nothing left to decode."""
    return len(start.said) >= start.limit or start.done(start.said)


@torch.no_grad()
def decode(model: nn.Module, starts: Sequence[Start]) -> list[tuple[int, ...]]:
    """The whole answer of each start, in order; an answer that ends with an end token keeps it."""
    out: list[list[int]] = [list(s.said) for s in starts]
    alive = [i for i, s in enumerate(starts) if not finished(s)]
    if not alive:
        return [tuple(said) for said in out]
    cache, mask = caches.stacked([starts[i].keys for i in alive])
    device = mask.device
    one = torch.ones(1, 1, dtype=torch.long, device=device)
    while alive:
        ids = torch.tensor([[out[i][-1]] for i in alive], device=device)
        places = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, one.expand(len(alive), 1)], 1)
        for i, token in zip(alive, _next(model, ids, mask, places, cache), strict=True):
            if not (len(out[i]) >= starts[i].limit or starts[i].done(out[i])):
                out[i].append(token)
        ends = [len(out[i]) >= starts[i].limit or starts[i].done(out[i]) for i in alive]
        if all(ends):
            break
        if sum(ends) >= LEAVE * len(alive):
            stay = [k for k, end in enumerate(ends) if not end]
            alive = [alive[k] for k in stay]
            index = torch.tensor(stay, device=device)
            cache.batch_select_indices(index)
            mask = mask[index]
    return [tuple(said) for said in out]


def _next(model: nn.Module, ids: Tensor, mask: Tensor, places: Tensor, cache: Any) -> list[int]:
    """The likeliest token after ``ids`` (B, 1)."""
    logits, _ = logits_at(
        model,
        torch.ones_like(ids, dtype=torch.bool),
        input_ids=ids,
        attention_mask=mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
    )
    return logits.argmax(-1).tolist()
