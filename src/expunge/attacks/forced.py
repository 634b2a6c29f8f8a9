"""Right answers put into a model's mouth: what it says of each token, given those before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.attacks.attack import Array, Subject
from expunge.data.chat import encode
from expunge.data.collate import collate
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.forward import family
from expunge.forward.view import logits_at
from expunge.generation.greedy import end_tokens

BATCH = 8
MAX_LENGTH = 512


@dataclass(frozen=True)
class Forced:
    """Rows ``start`` to ``start + B`` with their answers: ``inputs`` of the model; of the N answer tokens, without the end,
    the ``labels`` (N,), the ``rows`` (N,) in the batch, and (B, T) ``keep``, the positions that predict them, row by row.
    """

    start: int
    inputs: dict[str, Tensor]
    labels: Tensor
    rows: Tensor
    keep: Tensor


def batches(
    subject: Subject,
    rows: Sequence[Row],
    *,
    model: Any = None,
    answers: Sequence[str] | None = None,
    size: int = BATCH,
) -> list[Forced]:
    """The ``rows``, or their prompts with other ``answers``, as batches in order, where ``model`` (the subject's) is.

    Raises InputError where nothing of an answer fits into the model's input.
    """
    model, tokenizer = subject.model if model is None else model, subject.tokenizer
    ends, device = end_tokens(model, tokenizer), next(model.parameters()).device
    out = []
    for start in range(0, len(rows), size):
        examples = []
        for k, row in enumerate(rows[start : start + size], start):
            answer = None if answers is None else answers[k]
            examples.append(
                encode(row, tokenizer, answer=answer, max_length=MAX_LENGTH, chat_template=subject.templated)
            )
        batch = collate([vars(e) | {"index": i} for i, e in enumerate(examples)], pad_id=int(tokenizer.pad_token_id))
        row, position = batch["labelled"]
        labels = batch["labels"][row, position + 1]
        inner = torch.tensor([int(y) not in ends for y in labels], dtype=torch.bool)
        row, position, labels = row[inner], position[inner], labels[inner]
        if len(set(row.tolist())) < len(examples):
            lacking = next(i for i in range(len(examples)) if i not in set(row.tolist()))
            raise InputError(
                f"{rows[start + lacking].where or f'row {start + lacking + 1}'}: there is no answer to score"
            )
        keep = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
        keep[row, position] = True
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        out.append(Forced(start, inputs, labels.to(device), row.to(device), keep.to(device)))
    return out


@torch.no_grad()
def logits(model: nn.Module, batch: Forced) -> Tensor:
    """(N, V) in fp32."""
    return logits_at(model, batch.keep, use_cache=False, **batch.inputs)[0].float()


def token_logp(model: nn.Module, batch: Forced) -> Tensor:
    """(N,) the log-probability of each answer token."""
    return logits(model, batch).log_softmax(-1).gather(1, batch.labels[:, None]).squeeze(1)


def by_row(batch: Forced, values: Tensor) -> Array:
    """(N,) -> (B,) the mean of each row."""
    size = len(batch.keep)
    total = torch.zeros(size, dtype=torch.float64, device=values.device).index_add_(0, batch.rows, values.double())
    return np.asarray((total / torch.bincount(batch.rows, minlength=size)).cpu())


def hits(model: nn.Module, forced: Sequence[Forced]) -> Array:
    """(n,) the share of each answer's tokens that are the likeliest: exact memorisation, the end token left out."""
    return per_row(forced, lambda batch: logits(model, batch).argmax(-1) == batch.labels)


def per_row(forced: Sequence[Forced], values: Callable[[Forced], Tensor]) -> Array:
    """(n,) the mean over each row's tokens of ``values``."""
    return np.concatenate([by_row(batch, values(batch)) for batch in forced])


def hidden_states(model: nn.Module, forced: Sequence[Forced]) -> Iterator[tuple[Forced, tuple[Tensor, ...]]]:
    """Each batch with (B, T, D) of the embeddings and after each layer; the last is normed as the model has it."""
    for batch in forced:
        with torch.no_grad():
            out = family.run(model, output_hidden_states=True, use_cache=False, **batch.inputs)
        yield batch, out.hidden_states


def spread(n: int, most: int) -> list[int]:
    """At most ``most`` layers of ``n``, evenly spaced, the last one among them.

    >>> spread(30, 4), spread(2, 8)
    ([7, 14, 21, 29], [0, 1])
    """
    return list(range(n)) if n <= most else [round((k + 1) * n / most) - 1 for k in range(most)]
