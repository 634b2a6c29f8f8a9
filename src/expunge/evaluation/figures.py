r"""The few figures of one set under one model that a run reports before and after.

* probability: :math:`\mathbb{E}\,\pi(y|x)^{1/|y|}`, the exponential of the mean token log-probability, averaged over rows;
* nll: negative log-likelihood per labelled token, over all tokens;
* truth ratio: :math:`\mathbb{E}\,\min(r, 1/r)`, for rows that carry a paraphrase and wrong answers;
* ROUGE-L: recall of the greedy answer, with stemmer (needs ``expunge[bench]``).

Each metric's formula is in :mod:`expunge.evaluation.metrics`; the model is asked by :mod:`expunge.evaluation.collect`.

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


def probes(part: str, rows: Sequence[Row], shown: Container[int] = (), max_new_tokens: int = 80) -> list[Probe]:
    """What a run asks of one set: every answer scored, paraphrase and wrong answers where every row has them, and the rows
    with the numbers ``shown`` answered (a plain text is gone on with from its middle).
    """
    whole = all(r.paraphrase and r.perturbed for r in rows)
    ask = Ask(max_new_tokens)
    out = []
    for i, row in enumerate(rows):
        said = texts(row) if whole else {"answer": row.answer}
        plain = row.prompt is None
        out.append(Probe(part, i, row, said, ask if i in shown and not plain else None))
        if i in shown and plain:
            out.append(Probe(part, i, split_prompt(row), ask=ask))
    return out


def figures(found: Collected, part: str) -> dict[str, float]:
    """``n``, ``probability``, ``nll`` and, where they were asked for, ``truth_ratio`` and ``rouge_l`` (of rows with a word
    that ROUGE can read).
    """
    own = found.scored(part)
    out = {
        "n": len(own),
        "probability": metrics.mean(metrics.probability([s.mean_logp for s in own])),
        "nll": -float(np.concatenate([s.logp for s in own]).mean(dtype=np.float64)),
    }
    if wrong := found.variants(part, "wrong"):
        of = {v: {s.index: s.mean_logp for s in found.scored(part, v)} for v in (*wrong, "paraphrase")}
        ratios = [
            metrics.truth_ratio([of["paraphrase"][s.index]], [[of[v][s.index] for v in wrong if s.index in of[v]]])[0]
            for s in own
        ]  # row by row, for rows may have different numbers of wrong answers
        out["truth_ratio"] = metrics.closer_to_1_better(ratios)
    pairs = [(a.expected, a.text) for a in found.answers if a.part == part and readable(a.expected)]
    if pairs and importlib.util.find_spec("rouge_score") is not None:
        out["rouge_l"] = metrics.mean(rouge(*zip(*pairs, strict=True)))
    return out
