r"""The few figures of one set under one model that a run reports before and after.

* probability: :math:`\mathbb{E}\,\pi(y|x)^{1/|y|}`, the exponential of the mean token log-probability, averaged over rows;
* nll: negative log-likelihood per labelled token, over all tokens;
* truth ratio: :math:`\mathbb{E}\,\min(r, 1/r)`, for rows that carry a paraphrase and wrong answers;
* ROUGE-L: recall of the greedy answer, with stemmer (needs ``expunge[bench]``).

Each metric's formula is in :mod:`expunge.evaluation.metrics`; the model is run by :mod:`expunge.evaluation.collect`.

Maini et al. 2024, arXiv:2401.06121.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Container, Sequence

import numpy as np

from expunge.data.chat import split_prompt
from expunge.data.example import Row
from expunge.evaluation.benchmark import texts
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.metrics.rouge import readable, rouge
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected


def probes(part: str, rows: Sequence[Row], answered: Container[int] = (), max_new_tokens: int = 80) -> list[Probe]:
    """A run's probes of one set: every answer is scored, paraphrase and wrong answers if every row has them, and the rows
    with the numbers ``answered`` are answered (a plain text is continued from its middle).
    """
    has_alternatives = all(r.paraphrase and r.perturbed for r in rows)
    generation = Ask(max_new_tokens)
    out = []
    for i, row in enumerate(rows):
        answers = texts(row) if has_alternatives else {"answer": row.answer}
        plain = row.prompt is None
        out.append(Probe(part, i, row, answers, generation if i in answered and not plain else None))
        if i in answered and plain:
            out.append(Probe(part, i, split_prompt(row), ask=generation))
    return out


def figures(collected: Collected, part: str) -> dict[str, float]:
    """``n``, ``probability``, ``nll`` and, where they were collected, ``truth_ratio`` and ``rouge_l`` (of rows with a word
    that ROUGE can read).
    """
    scores = collected.scored(part)
    out = {
        "n": len(scores),
        "probability": metrics.mean(metrics.probability([s.mean_logp for s in scores])),
        "nll": -float(np.concatenate([s.logp for s in scores]).mean(dtype=np.float64)),
    }
    if wrong := collected.variants(part, "wrong"):
        by_variant = {v: {s.index: s.mean_logp for s in collected.scored(part, v)} for v in (*wrong, "paraphrase")}
        ratios = [
            metrics.truth_ratio(
                [by_variant["paraphrase"][s.index]],
                [[by_variant[v][s.index] for v in wrong if s.index in by_variant[v]]],
            )[0]
            for s in scores
        ]  # row by row, for rows may have different numbers of wrong answers
        out["truth_ratio"] = metrics.closer_to_1_better(ratios)
    pairs = [(a.expected, a.text) for a in collected.answers if a.part == part and readable(a.expected)]
    if pairs and importlib.util.find_spec("rouge_score") is not None:
        out["rouge_l"] = metrics.mean(rouge(*zip(*pairs, strict=True)))
    return out
