"""A batch padded on the right needs no attention mask: a causal model's real tokens do not see what stands behind them.

Without one, transformers reads nothing back from the device (it asks whether a mask is all ones), and attention runs in
its fast causal kernel.  Not every causal language model is causal in that sense, so a model is asked once: same logits, or
the mask stays.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.forward import family

log = logging.getLogger(__name__)

CLOSE = 1e-2  # mean difference of the logits over their deviation; a model that sees ahead gives far more
TOKENS = 32  # of the text that a model is asked about
KEY = "_expunge_needs_no_mask"


def settle(model: nn.Module, ids: Sequence[int]) -> None:
    """Ask ``model``, which must not be wrapped, whether it needs a mask over padding behind ``ids``; once."""
    if not hasattr(model, KEY) and len(ids) > 1:
        setattr(model, KEY, _proven(model, ids[:TOKENS]))


def run(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    """``model`` on ``batch`` (B, T), with its mask where it needs one: what it says at real tokens is the same."""
    inputs = {"input_ids": batch["input_ids"], "use_cache": False}
    if batch.get("padding") != "right" or not getattr(family.unwrap(model), KEY, False):
        return family.run(model, attention_mask=batch["attention_mask"], **inputs)
    with _one_text_a_row():
        return family.run(model, **inputs)


@contextmanager
def _one_text_a_row() -> Iterator[None]:
    """While open, transformers does not look at the positions for several texts packed into a row, for which it would read
    a number back from the device.
    """
    from transformers import masking_utils

    own = getattr(masking_utils, "find_packed_sequence_indices", None)
    if own is None:
        yield
        return
    masking_utils.find_packed_sequence_indices = _not_packed  # type: ignore[assignment]
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = own


def _not_packed(_: Tensor) -> None:
    return None


@torch.no_grad()
def _proven(model: nn.Module, ids: Sequence[int]) -> bool:
    """Whether the logits of the first half of ``ids`` come out the same with the second half masked and without a mask."""
    half = (len(ids) + 1) // 2
    rows = torch.tensor([list(ids)] * 2, device=next(model.parameters()).device)
    mask = torch.ones_like(rows)
    mask[1, half:] = 0
    training = model.training
    model.eval()
    try:
        masked = family.run(model, input_ids=rows, attention_mask=mask, use_cache=False).logits.float()
        with _one_text_a_row():
            free = family.run(model, input_ids=rows, use_cache=False).logits.float()
    except Exception as error:  # a model with a forward pass of its own, which may fail in any way of its own
        log.debug("the attention mask stays, for the model needs one: %r", error)
        return False
    finally:
        model.train(training)
    gap = torch.cat([(free - masked)[0], (free - masked)[1, :half]])
    return bool(gap.abs().mean() < CLOSE * masked[0].std())
