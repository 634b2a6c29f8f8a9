r"""The few figures of one set under one model that a run reports before and after.

* probability: :math:`\mathbb{E}\,\pi(y|x)^{1/|y|}`, the exponential of the mean token log-probability, averaged over rows;
* nll: negative log-likelihood per labelled token, over all tokens;
* truth ratio: :math:`\mathbb{E}\,\min(r, 1/r)` with r = (geometric mean over wrong answers of P(wrong)) / P(paraphrase),
  each P length-normalised, for rows that carry a paraphrase and wrong answers;
* ROUGE-L: recall of the greedy answer, with stemmer (needs ``expunge[bench]``).

Maini et al. 2024, arXiv:2401.06121.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from expunge.data.chat import encode
from expunge.data.collate import collate
from expunge.data.example import Example, Row
from expunge.errors import InputError
from expunge.forward import see

Progress = Callable[[int], None]


@torch.no_grad()
def mean_logp(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    pad_id: int,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[tuple[float, int]]:
    """(mean token log-probability, labelled tokens) of each example, in order; batches hold examples of like length."""
    from accelerate.utils import send_to_device

    model.eval()
    device = next(model.parameters()).device
    out: list[tuple[float, int]] = [(math.nan, 0)] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        flat = [{"input_ids": examples[i].input_ids, "labels": examples[i].labels, "index": i} for i in rows]
        batch = send_to_device(collate(flat, pad_id=pad_id), device)
        x = see(model, batch, grad=False)
        for i, total, n in zip(rows, x.sequence_logp.tolist(), x.lengths.tolist(), strict=True):
            out[i] = (total / n, n)
        if progress:
            progress(len(rows))
    return out


def figures(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    pad_id: int,
    max_length: int = 512,
    chat_template: bool = True,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> dict[str, float]:
    """``n``, ``probability``, ``nll`` and, where every row carries paraphrase and wrong answers, ``truth_ratio``."""

    def score(items: Iterable[Example]) -> list[tuple[float, int]]:
        return mean_logp(model, list(items), pad_id=pad_id, batch_size=batch_size, progress=progress)

    def coded(row: Row, answer: str | None = None) -> Example:
        return encode(row, tokenizer, max_length=max_length, answer=answer, chat_template=chat_template)

    own = score(coded(r) for r in rows)
    tokens = sum(n for _, n in own)
    out = {
        "n": len(own),
        "probability": sum(math.exp(v) for v, _ in own) / len(own),
        "nll": -sum(v * n for v, n in own) / tokens,
    }
    if all(r.paraphrase and r.perturbed for r in rows):
        paraphrased = score(coded(r, r.paraphrase) for r in rows)
        wrong = iter(score(coded(r, w) for r in rows for w in r.perturbed))
        ratios = []
        for row, (right, _) in zip(rows, paraphrased, strict=True):
            mean_wrong = sum(next(wrong)[0] for _ in row.perturbed) / len(row.perturbed)
            ratios.append(math.exp(-abs(mean_wrong - right)))  # min(r, 1/r) of r = exp(wrong - right)
        out["truth_ratio"] = sum(ratios) / len(ratios)
    return out


def passes(rows: Sequence[Row]) -> int:
    """How many sequences :func:`figures` runs for ``rows``: for a progress bar."""
    truth = all(r.paraphrase and r.perturbed for r in rows)
    return len(rows) + (sum(1 + len(r.perturbed) for r in rows) if truth else 0)


def has_rouge() -> bool:
    """Whether rouge-score is installed."""
    return importlib.util.find_spec("rouge_score") is not None


def rouge_l(expected: Sequence[str], given: Sequence[str]) -> float:
    """Mean ROUGE-L recall with stemmer: the share of the expected answer's words found in order in the given one.

    Hand-worked: "the cat sat" against "a cat sat down" has the common subsequence "cat sat", recall 2/3.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise InputError("ROUGE needs the package rouge-score: pip install 'expunge[bench]'") from None
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    recalls = [scorer.score(e, g)["rougeL"].recall for e, g in zip(expected, given, strict=True)]
    return sum(recalls) / len(recalls)
