"""The fluency of answers to questions to forget, from judged answers (:mod:`expunge.evaluation.collect.judge`).  No torch.

Each row's figure is :func:`expunge.evaluation.metrics.fluency.fluency`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from expunge.evaluation.benchmark import Figure, mean_figure
from expunge.evaluation.metrics import fluency as metrics
from expunge.evaluation.metrics.membership import words
from expunge.evaluation.metrics.repetition import repetition
from expunge.evaluation.table import Collected
from expunge.stats import ratio_bootstrap

Array = NDArray[np.float64]
ANSWER_VARIANT = "said"  # the variant of a model's own answer, as the judge scores it
LESS = 0.5  # times the fluency before: below, a warning
NAMES = {"answer_perplexity": "perplexity", "answer_repetition": "repetition", "answer_real_words": "real words"}
UNDER = "of answers under the model before"


@dataclass(frozen=True)
class Answers:
    """What a model answered to rows with the numbers ``index`` (n,), and of each answer its fluency, the share of repeated
    3-grams and of real words; ``nll`` and ``tokens``: summed over an answer's tokens under the judge, 0 where it is empty.
    """

    index: tuple[int, ...]
    fluency: Array
    repetition: Array
    real_words: Array
    nll: Array
    tokens: Array

    @property
    def perplexity(self) -> float:
        """Of all answers together, every token weighing the same; NaN where all are empty."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.nll.sum() / self.tokens.sum())) if self.tokens.any() else math.nan


def answers(collected: Collected, part: str) -> Answers | None:
    """The judged answers of ``part``, those without a word among them; None where none was judged."""
    judged = {s.index: s for s in collected.scores if (s.part, s.variant) == (part, ANSWER_VARIANT)}
    said = {a.index: a.text for a in collected.answers if (a.part, a.variant) == (part, "answer")}
    said = {i: text for i, text in sorted(said.items()) if i in judged or not text.strip()}
    if not said or not (judged or len(said) == sum((a.part, a.variant) == (part, "answer") for a in collected.answers)):
        return None
    texts = list(said.values())
    logp = [words(judged[i], judged[i].logp).astype(np.float64) if i in judged else np.zeros(0) for i in said]
    real = np.array([float(judged[i].note) if i in judged else 0.0 for i in said])
    nll, tokens = np.array([-t.sum() for t in logp]), np.array([float(len(t)) for t in logp])
    with np.errstate(over="ignore"):
        each = np.exp(np.divide(nll, tokens, out=np.zeros(len(nll)), where=tokens > 0))
    return Answers(tuple(said), metrics.fluency(texts, each, real), repetition(texts, metrics.GRAM), real, nll, tokens)


def figures(collected: Collected, part: str) -> list[Figure]:
    """Perplexity, repetition, real words and fluency of the judged answers of ``part``, each with its interval."""
    found = answers(collected, part)
    if found is None:
        return []
    out = []
    if found.tokens.any():
        interval = ratio_bootstrap(found.nll, found.tokens)
        low, high = (float(np.exp(end)) for end in (interval.low, interval.high))
        out.append(Figure("answer_perplexity", found.perplexity, len(found.index), low, high, part, UNDER))
    return [
        *out,
        mean_figure("answer_repetition", found.repetition, part, "share of repeated 3-grams of words"),
        mean_figure("answer_real_words", found.real_words, part, "share of words; unknown names count half"),
        mean_figure("fluency", found.fluency, part, "of perplexity, repetition and real words; 1: ordinary language"),
    ]


def means(collected: Collected, part: str) -> dict[str, float]:
    """The same figures of a run's record, without intervals."""
    return {f.name: f.value for f in figures(collected, part)}


def less_fluent(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """A warning where answers are much less fluent than before, with the figure that fell most.

    >>> was = {"fluency": 0.95, "answer_perplexity": 2.0, "answer_repetition": 0.0, "answer_real_words": 0.9}
    >>> less_fluent(was, was | {"fluency": 0.7})
    []
    """
    if "fluency" not in before or "fluency" not in after or after["fluency"] >= LESS * before["fluency"]:
        return []

    def share(figures: Mapping[str, float], name: str) -> float:
        value = figures.get(name, 1.0 if name == "answer_perplexity" else 0.0)
        if name == "answer_perplexity":
            return float(metrics.plausibility(max(1.0, value)))
        return 1 - value if name == "answer_repetition" else value

    worst = min(NAMES, key=lambda name: share(after, name) - share(before, name))
    was, now = (f"{figures[worst]:.3g}" if worst in figures else "none" for figures in (before, after))
    return [
        f"answers to questions to forget are much less fluent than before ({after['fluency']:.2f}, before "
        f"{before['fluency']:.2f}), most of all by their {NAMES[worst]} ({now}, before {was}): such answers betray what was "
        "to be forgotten; try a lower learning_rate, fewer steps, or a method that ends at a level (blur_level)"
    ]
