"""Statistics of the logits at a token, computed before the logits are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CPU_ROWS = 1 << 17  # elements of a temporary over the vocabulary, which fits a processor's own cache
ROWS = 1 << 22  # the same elsewhere


@dataclass(frozen=True)
class Facts:
    """Of n tokens: log-probability, its mean and deviation over the vocabulary, and the most likely token."""

    logp: Tensor
    mean: Tensor
    std: Tensor
    best: Tensor


def fields(facts: Facts) -> tuple[Tensor, ...]:
    """The columns of ``facts``, in the order of its constructor."""
    return facts.logp, facts.mean, facts.std, facts.best


def at_places(facts: Facts, places: Sequence[int]) -> Facts:
    """The facts of the tokens at ``places``."""
    return Facts(*(column[list(places)] for column in fields(facts)))


def facts(logits: Tensor, labels: Tensor) -> Facts:
    """(n, V), (n,) -> facts of n tokens, in fp32, a few rows of the vocabulary at a time."""
    chunks: list[tuple[Tensor, ...]] = []
    step = max(1, (CPU_ROWS if logits.device.type == "cpu" else ROWS) // logits.shape[-1])
    for i in range(0, len(logits), step):
        z, y = logits[i : i + step].float(), labels[i : i + step]
        log_probs = z.log_softmax(-1)
        p = log_probs.exp()
        mean = (p * log_probs).sum(-1, keepdim=True)
        spread = (p * (log_probs - mean).square()).sum(-1).sqrt()
        chunks.append((log_probs.gather(1, y[:, None]).squeeze(1), mean.squeeze(1), spread, z.argmax(-1)))
    if not chunks:
        none = logits.new_zeros(0)
        return Facts(none, none, none, labels)
    return Facts(*(torch.cat(columns) for columns in zip(*chunks, strict=True)))


def split(facts: Facts, lengths: list[int]) -> list[Facts]:
    """The facts of consecutive texts of ``lengths`` tokens."""
    return [Facts(*columns) for columns in zip(*(f.split(lengths) for f in fields(facts)), strict=True)]


def joined(parts: Sequence[Facts]) -> Facts:
    """The facts of a text from those of its parts."""
    return Facts(*(torch.cat(columns) for columns in zip(*map(fields, parts), strict=True)))


def first(facts: Facts, n: int) -> Facts:
    """The facts of the first ``n`` tokens."""
    return Facts(*(f[:n] for f in fields(facts)))
