"""A plain training loop for attackers: AdamW on all weights or on LoRA, seeded, undone at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.attacks.restore import restored, trainable_copies
from expunge.data.chat import encode
from expunge.data.collate import collate
from expunge.data.example import Example, Row
from expunge.errors import InputError
from expunge.forward.view import IGNORE, see
from expunge.models.adapt import attach_lora, detach_lora

RANK = 16  # of LoRA; its alpha is twice that
CLIP = 1.0  # norm that gradients are cut to
MAX_LENGTH = 512


@dataclass(frozen=True)
class Setting:
    """How an attacker trains: the learning ``rate``, constant, of AdamW without weight decay; ``lora`` or all weights."""

    rate: float
    lora: bool = False

    def __str__(self) -> str:
        return f"{'LoRA' if self.lora else 'all weights'}, {self.rate:.0e}"


@contextmanager
def trained_parts(model: Any, setting: Setting, seed: int) -> Iterator[list[nn.Parameter]]:
    """The parameters that train, in fp32, without dropout; at the end ``model`` is as it was, to the bit.

    Raises InputError for all weights of a model that is held in 4 or 8 bits.
    """
    with restored(model):
        if not setting.lora:
            trainable_copies(model)
            yield list(model.parameters())
            return
        net = attach_lora(model, r=RANK, alpha=2 * RANK, seed=seed)  # inside `model`, which is measured
        try:
            yield [p for p in net.parameters() if p.requires_grad]
        finally:
            detach_lora(net)


def train(
    model: Any,
    tokenizer: Any,
    batches: Sequence[Sequence[Row]],
    setting: Setting,
    after: Callable[[int], None],
    *,
    seed: int = 0,
    chat_template: bool = True,
) -> int:
    """Train on one of ``batches`` a step and call ``after(step)``, from 1; the mean is over labelled tokens.

    Returns the number of steps with finite loss and gradients: the first that has not ends training.
    """
    coded = [[_encoded(row, tokenizer, chat_template) for row in batch] for batch in batches]
    pad, device = int(tokenizer.pad_token_id), next(model.parameters()).device
    with trained_parts(model, setting, seed) as parts:
        optimizer = torch.optim.AdamW(parts, lr=setting.rate, weight_decay=0.0)
        for step, examples in enumerate(coded, 1):
            batch = collate([vars(e) | {"index": i} for i, e in enumerate(examples)], pad_id=pad)
            batch = {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = -see(model, batch).token_logp.mean()
                loss.backward()
            norm = nn.utils.clip_grad_norm_(parts, CLIP)
            if not math.isfinite(float(loss.detach()) + float(norm)):
                return step - 1
            optimizer.step()
            after(step)
    return len(batches)


def drawn(rows: Sequence[Row], steps: int, size: int, seed: int) -> list[list[Row]]:
    """``steps`` batches of ``size`` (or all) of ``rows``: epoch after epoch, each in an order of its own."""
    rng, queue, out = np.random.default_rng(seed), list[int](), []
    for _ in range(steps):
        if len(queue) < min(size, len(rows)):
            queue += rng.permutation(len(rows)).tolist()
        taken, queue = queue[:size], queue[size:]
        out.append([rows[i] for i in taken])
    return out


def _encoded(row: Row, tokenizer: Any, chat_template: bool) -> Example:
    example = encode(row, tokenizer, max_length=MAX_LENGTH, chat_template=chat_template)
    if all(y == IGNORE for y in example.labels[1:]):
        raise InputError(
            f"{row.where or 'a row'}: its first {MAX_LENGTH} tokens hold nothing of the answer to train on"
        )
    return example
