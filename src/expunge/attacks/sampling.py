r"""Attacks that ask often: what is never the likeliest answer may still be drawn.

Of n answers to a question, drawn at temperature 1, c leak.  That any of k leaks has the unbiased estimate

.. math:: \mathrm{leak@}k = 1 - \binom{n - c}{k} \Bigm/ \binom{n}{k}

(arXiv:2511.04934), and for a score S instead of a yes or no the largest of k is expected to be

.. math:: \sum_{j=k}^{n} \binom{j-1}{k-1} \Bigm/ \binom{n}{k} \; S_{(j)}, \qquad S_{(1)} \le \dots \le S_{(n)}.

An answer leaks if it holds at least half of the answer's words that the question does not (:data:`LEAK`); the paper
asks a model for entailment instead.  Cost: rows · samples answers, each of at most 96 tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from expunge.attacks.asking import Answerer, local, scores
from expunge.attacks.attack import Array, Attack, Measure, Point, Subject
from expunge.attacks.prompts import Asked, key
from expunge.attacks.restore import evaluated
from expunge.attacks.variants import plain
from expunge.data.chat import prompt_ids
from expunge.errors import InputError
from expunge.generation.greedy import end_tokens
from expunge.generation.sample import ROWS, Sampling, sampled
from expunge.stats import LEVEL, Interval, clopper_pearson

SAMPLES = 16
LEAK = 0.5  # recall from which an answer leaks
Sampler = Callable[[Sequence[Asked], int], list[list[str]]]
"""Of prompts and n, n answers to each, drawn at temperature 1 from the whole vocabulary."""


# -- formulas -------------------------------------------------------------------------------------------------------------
def leak_at_k(leaks: int, n: int, k: int) -> float:
    r"""The unbiased estimate of the chance that at least one of ``k`` answers leaks, of which ``leaks`` of ``n`` did.

    Hand-worked: 1 of 4 leaked; of the 6 pairs 3 hold it, so leak@2 is ½.

    >>> leak_at_k(1, 4, 2), leak_at_k(0, 4, 4), leak_at_k(3, 4, 2)
    (0.5, 0.0, 1.0)
    """
    check_counts(leaks, n, k)
    return 1.0 - math.prod((n - leaks - i) / (n - i) for i in range(k))


def largest_of_k(values: ArrayLike, k: int) -> float:
    """The unbiased estimate of the expected largest of ``k`` draws, from n of them (n,).

    Hand-worked: of 0, ¼, 1 the pairs have the maxima ¼, 1, 1: their mean is ¾.

    >>> largest_of_k([1.0, 0.0, 0.25], 2)
    0.75
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    check_counts(0, n, k)
    weight, total = k / n, 0.0  # of the largest: C(n-1, k-1) / C(n, k)
    for j in range(n, k - 1, -1):
        total += weight * float(ordered[j - 1])
        weight *= (j - k) / (j - 1) if j > 1 else 0.0
    return total


def leak_interval(leaks: int, n: int, k: int, *, level: float = LEVEL) -> Interval:
    r"""Exact interval of the chance that one of ``k`` answers leaks: 1 - (1 - p)^k at both ends of Clopper and Pearson's.

    Hand-worked: 0 of 10 bounds p by 0.3085, and so one of 2 answers by 1 - 0.6915² = 0.5218.  Scholten et al. 2024,
    arXiv:2410.03523.
    """
    check_counts(leaks, n, k)
    p = clopper_pearson(leaks, n, level=level)
    return Interval(1 - (1 - p.low) ** k, 1 - (1 - p.high) ** k)


def mean_leak_interval(leaks: Sequence[int], n: int, k: int, *, level: float = LEVEL) -> Interval:
    """Interval of the mean over *these* rows of the chance that one of ``k`` answers leaks, from each row's leaks in ``n``.

    The mean of the rows' :func:`leak_interval`, each at the level 1 - (1 - level) / rows, so that all hold together:
    exact, and wide.  What other rows would leak is another question.
    """
    if not leaks:
        raise InputError("there is no row whose answers could leak")
    each = [leak_interval(c, n, k, level=1 - (1 - level) / len(leaks)) for c in leaks]
    return Interval(float(np.mean([i.low for i in each])), float(np.mean([i.high for i in each])))


def check_counts(leaks: int, n: int, k: int) -> None:
    """Raise InputError where ``k`` of ``n`` answers cannot be drawn, or ``leaks`` is no number of them."""
    if not 1 <= k <= n or not 0 <= leaks <= n:
        raise InputError(f"leak@k needs 1 <= k <= samples and 0 <= leaks <= samples, not k={k}, {n}, {leaks}")


# -- of a model -----------------------------------------------------------------------------------------------------------
def drawn_from(subject: Subject) -> Sampler:
    """The model in memory; the same answers from the same seed, which are drawn once for all attacks on ``subject``."""
    model, tokenizer = subject.model, subject.tokenizer

    def draw(prompts: Sequence[Asked], n: int) -> list[list[str]]:
        place = json.dumps([[key(a) for a in prompts], n, subject.seed])
        if place not in subject.answers:
            subject.answers[place] = drawn(prompts, n)
        found: list[list[str]] = subject.answers[place]
        return found

    def drawn(prompts: Sequence[Asked], n: int) -> list[list[str]]:
        ids = [tuple(prompt_ids(a.row, tokenizer, chat_template=subject.templated)) for a in prompts]
        generator, ends = torch.Generator().manual_seed(subject.seed), end_tokens(model, tokenizer)
        order = sorted((i for i in range(len(prompts)) for _ in range(n)), key=lambda i: (len(ids[i]), i))
        out: list[list[str]] = [[] for _ in prompts]
        for start in range(0, len(order), ROWS):
            some = order[start : start + ROWS]
            how = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=max(prompts[i].tokens for i in some))
            for i, said in zip(
                some, sampled(model, tokenizer, [ids[i] for i in some], how, ends, generator), strict=True
            ):
                out[i].append(tokenizer.decode(said.tokens, skip_special_tokens=True).strip())
        return out

    return draw


def recalls(sampler: Sampler, subject: Subject, samples: int = SAMPLES) -> Array:
    """(n, samples) the recall of each row's sampled answers; of this all figures here are made."""
    prompts = plain(subject)
    texts = sampler(prompts, samples)
    return np.array([[a.score(t) for t in some] for a, some in zip(prompts, texts, strict=True)])


def leaks(recall: Array, threshold: float = LEAK) -> NDArray[np.int64]:
    """(n, samples) -> (n,) how many answers of each row leak."""
    return np.asarray(np.count_nonzero(recall >= threshold, axis=1), dtype=np.int64)


def points_of(answer: Answerer, sampler: Sampler, subject: Subject, *, samples: int, binary: bool) -> list[Point]:
    """The greedy answer, then k = 1, 2, 4, … samples: leak@k, or the expected largest recall."""
    prompts = plain(subject)
    greedy = scores(prompts, answer(prompts), len(subject.forget))
    recall = recalls(sampler, subject, samples)
    ks = [2**i for i in range(samples.bit_length())]
    if binary:
        counts = leaks(recall).tolist()
        curve = [Point(k, f"leak@{k}", np.array([leak_at_k(c, samples, k) for c in counts])) for k in ks]
        return [Point(0, "likeliest answer leaks", (greedy >= LEAK).astype(float)), *curve]
    curve = [Point(k, f"best of {k}", np.array([largest_of_k(row, k) for row in recall])) for k in ks]
    return [Point(0, "likeliest answer", greedy), *curve]


def sample(subject: Subject, measure: Measure, *, samples: int = SAMPLES, binary: bool) -> list[Point]:
    """:func:`points_of` a model in memory."""
    with evaluated(subject.model):
        return points_of(local(subject), drawn_from(subject), subject, samples=samples, binary=binary)


ATTACKS = (
    Attack(
        "leak-at-k",
        "sampling",
        "any of k sampled answers leaks",
        partial(sample, binary=True),
        unit="samples",
        random=True,
    ),
    Attack(
        "best-of-k",
        "sampling",
        "the best of k sampled answers",
        partial(sample, binary=False),
        unit="samples",
        random=True,
    ),
)
