"""The leading tokens that all rows of a batch share, run once: a chat template's system prompt, as a rule.

Keys and values of the shared tokens are computed for one row and repeated for the others; gradients flow back through
the repetition, so loss and gradient are those of the whole batch.  Worth it where time goes with tokens: on a CPU, with
eight TOFU rows a batch, a quarter of SmolLM2's tokens are the template's repeated.  With four rows a second call costs
as much as it saves, and on an accelerator more, so nothing is shared there.

Not every model reads a cache it is given as if it had written it, so a model is asked once: same logits, or no sharing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.forward import family, padding

log = logging.getLogger(__name__)

MIN_SAVED_TOKENS = 128  # tokens saved in a batch: fewer are not worth a second call, which is short and so inefficient
CLOSE = 1e-2  # mean difference of the logits over their deviation; other positions or masks give far more


def shared(ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], ignore: int) -> int:
    """How many leading tokens all rows share, before the position that predicts the first labelled token of any row.

    0 where a row stands alone or too little is shared.
    """
    if len(ids) < 2:
        return 0
    first_label = min(next((t for t, y in enumerate(row) if y != ignore), len(row)) for row in labels)
    end = max(0, first_label - 1)
    same = next((t for t, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1 or t >= end), end)
    return same if same * (len(ids) - 1) >= MIN_SAVED_TOKENS else 0


def usable(model: nn.Module, batch: Mapping[str, Any]) -> int:
    """How many leading tokens of ``batch`` can be run once under ``model``, which must not be wrapped."""
    tokens = int(batch.get("prefix", 0))
    if not tokens or batch["input_ids"].device.type != "cpu":
        return 0
    if _checkpointed(model):  # it switches the cache off
        return 0
    if not hasattr(model, "_expunge_shares_prefix"):
        model._expunge_shares_prefix = _proven(model, batch, tokens)  # type: ignore[assignment]
    return tokens if model._expunge_shares_prefix else 0


def _checkpointed(model: nn.Module) -> bool:
    """Whether activations are computed again in the backward pass; transformers has given that another name."""
    new = getattr(model, "is_activation_checkpointing", None)
    return bool(getattr(model, "is_gradient_checkpointing", False) if new is None else new)


def logits(model: nn.Module, batch: Mapping[str, Any], tokens: int) -> Tensor:
    """What ``model`` says of ``batch``; of its columns after the first ``tokens``, which are run for one row only."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if not tokens:
        whole: Tensor = padding.run(model, batch).logits
        return whole
    first = family.run(model, input_ids=ids[:1, :tokens], attention_mask=mask[:1, :tokens], use_cache=True)
    cache = family.cache_of(first)
    cache.batch_repeat_interleave(len(ids))
    rest: Tensor = family.run(model, cache=cache, input_ids=ids[:, tokens:], attention_mask=mask, use_cache=True).logits
    return rest


@torch.no_grad()
def _proven(model: nn.Module, batch: Mapping[str, Any], tokens: int) -> bool:
    """Whether the logits of two rows come out the same with and without sharing."""
    if not family.by_position(model):
        return False
    few = {k: batch[k][:2] for k in ("input_ids", "attention_mask")}
    training = model.training
    model.eval()
    try:
        whole = logits(model, few, 0)[:, tokens:].float()
        try:
            parts = logits(model, few, tokens).float()
        except Exception as error:  # a model with a cache of its own making, which may fail in any way of its own
            log.debug("the prefix is not shared, for the cache cannot be repeated: %r", error)
            return False
    finally:
        model.train(training)
    real = few["attention_mask"][:, tokens:].bool()
    return bool((whole - parts)[real].abs().mean() < CLOSE * whole[real].std())
