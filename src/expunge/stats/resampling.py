"""Percentile bootstrap intervals: the same numbers from the same seed, however many resamples are drawn at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError
from expunge.stats.exact import clopper_pearson, share_of_others
from expunge.stats.ranks import auc
from expunge.stats.samples import LEVEL, Array, Interval, check_level, ratio, sample

RESAMPLES = 1000
BLOCK = 1 << 20  # numbers that are drawn at a time: 16 MiB


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    r"""Percentile bootstrap interval of ``statistic(*samples)``, every sample resampled on its own.

    .. math:: \bigl[\,q_{\alpha/2},\; q_{1-\alpha/2}\bigr] \text{ of } T(x^*_1, \dots, x^*_k),
        \qquad \alpha = 1 - \text{level}

    From any number of (n_i,), drawn with replacement ``resamples`` times.  Too short on few examples, and of no width
    where all of them agree (:func:`bounded_mean` has one).  :func:`paired_bootstrap` keeps pairs together.

    Hand-worked: the mean of (0, 1) is resampled to 0, ½, 1 with chances ¼, ½, ¼, so the 40 % interval is [½, ½] and the
    60 % interval is [0, 1].

    Efron and Tibshirani 1993, ch. 13.
    """
    arrays = [sample(s, f"sample {i + 1}") for i, s in enumerate(samples)]
    if not arrays:
        raise InputError("there is no sample to resample: give at least one")
    check_level(level, resamples)
    rng = np.random.default_rng(seed)
    values = [statistic(*(a[rng.integers(len(a), size=len(a))] for a in arrays)) for _ in range(resamples)]
    return percentiles(np.array(values), level)


def bootstrap_mean(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The :func:`bootstrap` interval of a mean: the same numbers from the same seed, drawn many resamples at a time.

    From (n,).  Hand-worked: five times the same number gives an interval of no width.
    """
    array = sample(values)
    check_level(level, resamples)
    rng, n = np.random.default_rng(seed), len(array)
    rows = max(1, BLOCK // n)
    sizes = [min(rows, resamples - done) for done in range(0, resamples, rows)]
    means = [array[rng.integers(n, size=(size, n))].mean(axis=1) for size in sizes]  # (size,) each
    return percentiles(np.concatenate(means), level)


def bounded_mean(
    values: ArrayLike,
    low: float = 0.0,
    high: float = 1.0,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    r"""Interval of the mean of values that lie between ``low`` and ``high``: never outside, and never without a width.

    From (n,).  Only the two ends: the share of the upper one, :func:`clopper_pearson`.  One value v over and over: n
    examples of n showed it, so at most the share q of all examples is otherwise, and

    .. math:: \bigl[\,v - q\,(v - \mathrm{low}),\; v + q\,(\mathrm{high} - v)\bigr], \qquad q = 1 - (\alpha/2)^{1/n}

    Everything else: :func:`bootstrap_mean`.

    Hand-worked: ten times 0 gives [0, 0.3085], as 0 of 10 does; ten times 1/2 gives 1/2 ± 0.3085 / 2.
    """
    array = sample(values)
    check_level(level, resamples)
    if (array < low).any() or (array > high).any():
        wrong = array[(array < low) | (array > high)][0]
        raise InputError(f"the values must lie between {low:g} and {high:g}, and one is {wrong:g}")
    if (array == array[0]).all():
        others = share_of_others(len(array), level)
        v = float(array[0])
        return Interval(v - others * (v - low), v + others * (high - v))
    if low == 0 and high == 1 and np.isin(array, (0, 1)).all():
        return clopper_pearson(int(array.sum()), len(array), level=level)
    return bootstrap_mean(array, level=level, resamples=resamples, seed=seed)


def bootstrap_of_means(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The :func:`bootstrap` interval of a statistic of several means of shares, one that rises with each of them.

    From any number of (n_i,) in [0, 1].  A sample of one value over and over does not vary between resamples; the interval
    then reaches to the statistic of its mean's ends by :func:`bounded_mean`.

    Hand-worked: the mean of two samples, ten times 1 each, is 1 in [0.6915, 1].
    """
    arrays = [sample(s, f"sample {i + 1}") for i, s in enumerate(samples)]
    if not arrays:
        raise InputError("there is no sample to resample: give at least one")
    check_level(level, resamples)
    means = [
        [array[pick].mean(axis=1) for array, pick in zip(arrays, block, strict=True)]  # (size,) each
        for block in picks([len(a) for a in arrays], resamples, seed)
    ]
    rows = np.concatenate([np.stack(block, axis=1) for block in means])
    within = percentiles(np.array([statistic(*map(float, row)) for row in rows]), level)
    if not any((a == a[0]).all() for a in arrays):
        return within
    ends = [
        bounded_mean(a, level=level) if (a == a[0]).all() else Interval(float(a.mean()), float(a.mean()))
        for a in arrays
    ]
    low, high = statistic(*(e.low for e in ends)), statistic(*(e.high for e in ends))
    return Interval(min(within.low, low), max(within.high, high))


def auc_interval(
    members: ArrayLike,
    non_members: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The :func:`bootstrap` interval of :func:`auc`; where that has no width, the one of as many pairs as can be formed.

    From (n,) and (m,).  min(n, m) pairs without a common text are independent; all of them came out alike, so
    :func:`bounded_mean` bounds the share of pairs that do.

    Hand-worked: members (0, 0), non-members (1, 1) have the AUC 1, two pairs, and the lower bound 0.025^(1/2) = 0.1581.
    """
    member_scores, non_member_scores = sample(members, "the members"), sample(non_members, "the non-members")
    check_level(level, resamples)
    drawn = picks((len(member_scores), len(non_member_scores)), resamples, seed)
    aucs = [resampled_aucs(member_scores, non_member_scores, *block) for block in drawn]
    interval = percentiles(np.concatenate(aucs), level)
    if interval.low < interval.high:
        return interval
    return bounded_mean(
        [auc(member_scores, non_member_scores)] * min(len(member_scores), len(non_member_scores)), level=level
    )


def paired_bootstrap(
    statistic: Callable[[Array, Array], float],
    a: ArrayLike,
    b: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The :func:`bootstrap` interval of two measurements of the *same* examples, which are resampled together.

    From (n,) and (n,), entry i of both being example i: a model before and after, say.  What the two have in common drops
    out of their difference, so the interval is shorter than that of two separate samples.

    Hand-worked: the mean of a - b with b = a - 1 is 1 in every resample, so the interval is [1, 1].
    """
    first, second = sample(a, "the first sample"), sample(b, "the second sample")
    if len(first) != len(second):
        raise InputError(f"paired samples must be of one length, not {len(first)} and {len(second)}")
    check_level(level, resamples)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(first), size=len(first)) for _ in range(resamples))
    return percentiles(np.array([statistic(first[p], second[p]) for p in drawn]), level)


def ratio_bootstrap(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    r"""The :func:`bootstrap` interval of a ratio of sums, both of the *same* examples, which are resampled together.

    .. math:: \sum_i a_i \Bigm/ \sum_i b_i

    From (n,) and (n,), b not negative: correct and all entities of a sentence (precision, recall, F1), the loss and the
    tokens of a text.  A resample whose sum of b is 0 counts 0, as the ratio itself is taken where nothing is there to
    find.

    Hand-worked: a = (0, 1) and b = (1, 3) are resampled to 0, 1/4, 1/3 with chances ¼, ½, ¼, so the 40 % interval is
    [1/4, 1/4] and the 60 % interval [0, 1/3].

    Efron and Tibshirani 1993, ch. 13.
    """
    above, below = sample(numerator, "the numerator"), sample(denominator, "the denominator")
    if len(above) != len(below):
        raise InputError(f"paired samples must be of one length, not {len(above)} and {len(below)}")
    if (below < 0).any():
        raise InputError(f"the denominator: entry {int((below < 0).argmax())} is negative")
    check_level(level, resamples)
    rng, n = np.random.default_rng(seed), len(above)
    rows = max(1, BLOCK // n)
    ratios = []
    for done in range(0, resamples, rows):
        picks = rng.integers(n, size=(min(rows, resamples - done), n))
        ratios.append(ratio(above[picks].sum(axis=1), below[picks].sum(axis=1)))
    return percentiles(np.concatenate(ratios), level)


def picks(sizes: Sequence[int], resamples: int, seed: int) -> Iterator[list[NDArray[np.int64]]]:
    """The entries of each sample that :func:`bootstrap` takes from the same seed, many resamples at a time: (size, n_i)."""
    rng, most = np.random.default_rng(seed), max(1, BLOCK // sum(sizes))
    for done in range(0, resamples, most):
        rows = [[rng.integers(n, size=n) for n in sizes] for _ in range(min(most, resamples - done))]
        yield [np.stack(pick) for pick in zip(*rows, strict=True)]


def resampled_aucs(
    member_scores: Array, non_member_scores: Array, member_picks: NDArray[np.int64], non_member_picks: NDArray[np.int64]
) -> Array:
    """:func:`auc` of each resample, in whole numbers: how often it holds each value, and the members at or below it."""
    values, ranks = np.unique(np.concatenate([member_scores, non_member_scores]), return_inverse=True)
    counts = [
        _counts(ranks[: len(member_scores)][member_picks], len(values)),
        _counts(ranks[len(member_scores) :][non_member_picks], len(values)),
    ]
    doubled = (counts[1] * (2 * counts[0].cumsum(axis=1) - counts[0])).sum(axis=1)  # a tie counts once
    return np.asarray(doubled / 2 / (len(member_scores) * len(non_member_scores)), dtype=np.float64)


def _counts(ranks: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How often each of 0 .. n-1 occurs in each row: (size, k) -> (size, n)."""
    rows = np.arange(len(ranks))[:, None] * n
    return np.bincount((ranks + rows).ravel(), minlength=len(ranks) * n).reshape(len(ranks), n)


def percentiles(values: Array, level: float) -> Interval:
    """The interval between the (1 - level) / 2 quantiles of ``values`` (resamples,)."""
    if not np.isfinite(values).all():
        raise InputError(f"the statistic is {values[~np.isfinite(values)][0]} on a resample, so it has no interval")
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))
