r"""Tests, areas and intervals that stand behind every figure.  numpy and scipy only.

A *sample* is one list of numbers (n,).  An empty one, or one with NaN in it, is an
:class:`~expunge.errors.InputError` everywhere; infinities pass where only the order counts.  Whatever is drawn at random
is drawn from ``seed``, so the same call gives the same interval.

Scores of membership inference are *higher for non-members*, as in OpenUnlearning (Dorna et al. 2025, arXiv:2506.12618).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from expunge.errors import InputError

Array = NDArray[np.float64]
LEVEL, RESAMPLES = 0.95, 1000
BLOCK = 1 << 20  # numbers that bootstrap_mean draws at a time: 16 MiB


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Equivalence:
    """Difference of two means, its interval at level 1 - 2α, the p-value of the worse one-sided test, and the verdict."""

    difference: float
    low: float
    high: float
    p: float
    equivalent: bool


def sample(values: ArrayLike, name: str = "the sample") -> Array:
    """``values`` (n,) as numbers; InputError, with ``name`` in it, where there are none or one is NaN."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: not one list of numbers") from None
    if array.ndim != 1:
        raise InputError(f"{name}: not one list of numbers, the shape is {array.shape}")
    if not len(array):
        raise InputError(f"{name}: empty, give at least one number")
    if np.isnan(array).any():
        raise InputError(f"{name}: entry {int(np.isnan(array).argmax())} is NaN")
    return array


def harmonic_mean(values: ArrayLike) -> float:
    r"""Harmonic mean of non-negative numbers; 0 as soon as one of them is 0.

    .. math:: n \Bigm/ \sum_i 1 / v_i

    From (n,); InputError where a value is negative.

    Hand-worked: (1, 1/2) gives 2 / (1 + 2) = 2/3.
    """
    array = sample(values, "the harmonic mean's values")
    if (array < 0).any():
        raise InputError(f"the harmonic mean's values: entry {int((array < 0).argmax())} is negative")
    if (array == 0).any():
        return 0.0
    with np.errstate(over="ignore", divide="ignore"):  # 1 / v of the smallest numbers is inf, and the mean 0
        return float(len(array) / (1 / array).sum())


def ks_two_sample(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    r"""Kolmogorov–Smirnov test: (statistic, p) of "both samples come from one distribution".

    .. math:: D = \sup_x \bigl| F_a(x) - F_b(x) \bigr|

    From (n,) and (m,).  As ``scipy.stats.ks_2samp`` does by default: two-sided, p exact up to 10 000 numbers a sample and
    asymptotic above.  On the truth ratios of an unlearned and a retrained model p is TOFU's *forget quality*.  A large p is
    not equality (:func:`tost` shows that): at 5 % two samples of 40 are only told apart from D = 13/40 on.

    Hand-worked: (1, 2, 3) and (4, 5, 6) do not overlap, D = 1; of the 20 ways to mix them two do that, p = 0.1.

    Hodges 1958, doi:10.1007/BF02589501; forget quality: Maini et al. 2024, arXiv:2401.06121.
    """
    found = scipy_stats.ks_2samp(sample(a, "the first sample"), sample(b, "the second sample"))
    return float(found.statistic), float(found.pvalue)


def auc(members: ArrayLike, non_members: ArrayLike) -> float:
    r"""Area under the ROC curve of a membership score that is *higher for non-members*.

    .. math:: P(s_{\text{non-member}} > s_{\text{member}}) + \tfrac12 P(s_{\text{non-member}} = s_{\text{member}})

    From (n,) and (m,), in whole numbers.  1 means the members are plainly seen, 1/2 that they are not, 0 that they look
    *less* known than texts the model never saw.  OpenUnlearning's convention (members 0, non-members 1); MUSE reports 1
    minus this.

    Hand-worked: members (1, 2), non-members (2, 3): the pairs 1<2, 1<3, 2=2, 2<3 give 3.5 / 4 = 0.875.

    Mann and Whitney 1947, doi:10.1214/aoms/1177730491; Dorna et al. 2025, arXiv:2506.12618.
    """
    seen, unseen = sample(members, "the members"), sample(non_members, "the non-members")
    ordered = np.sort(seen)
    above = (
        ordered.searchsorted(unseen, "left").sum() + ordered.searchsorted(unseen, "right").sum()
    )  # a tie counts once
    return float(above / 2 / (len(seen) * len(unseen)))


def tpr_at_fpr(members: ArrayLike, non_members: ArrayLike, fpr: float = 0.01) -> float:
    r"""Share of members found while at most ``fpr`` of the non-members are called members: what a careful attacker gets.

    .. math:: \max_t P(s_{\text{member}} < t) \quad\text{where}\quad P(s_{\text{non-member}} < t) \le \mathrm{fpr}

    From (n,) and (m,).  The score is higher for non-members, as in :func:`auc`, so a text is called a member *below* the
    threshold.  The false positive rate is never exceeded and nothing is interpolated: with fewer than 1 / ``fpr``
    non-members no false positive is allowed.  ``fpr`` · m may fall short of a whole number by 1e-9.

    Hand-worked: members (0, 1, 5), non-members (2, 3) and fpr 0: the threshold is 2, which finds 2 of 3.

    Carlini et al. 2022, arXiv:2112.03570.
    """
    if not 0 <= fpr <= 1:
        raise InputError(f"a false positive rate must lie between 0 and 1, not {fpr}")
    seen, unseen = sample(members, "the members"), np.sort(sample(non_members, "the non-members"))
    allowed = int(np.floor(fpr * len(unseen) + 1e-9))
    if allowed == len(unseen):
        return 1.0
    return float((seen < unseen[allowed]).mean())


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
    _check(level, resamples)
    rng = np.random.default_rng(seed)
    found = [statistic(*(a[rng.integers(len(a), size=len(a))] for a in arrays)) for _ in range(resamples)]
    return _percentiles(np.array(found), level)


def bootstrap_mean(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The :func:`bootstrap` interval of a mean: the same numbers from the same seed, drawn many resamples at a time.

    From (n,).  Hand-worked: five times the same number gives an interval of no width.
    """
    array = sample(values)
    _check(level, resamples)
    rng, n = np.random.default_rng(seed), len(array)
    rows = max(1, BLOCK // n)
    sizes = [min(rows, resamples - done) for done in range(0, resamples, rows)]
    means = [array[rng.integers(n, size=(size, n))].mean(axis=1) for size in sizes]  # (size,) each
    return _percentiles(np.concatenate(means), level)


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
    _check(level, resamples)
    if (array < low).any() or (array > high).any():
        wrong = array[(array < low) | (array > high)][0]
        raise InputError(f"the values must lie between {low:g} and {high:g}, and one is {wrong:g}")
    if (array == array[0]).all():
        rest = _others(len(array), level)
        v = float(array[0])
        return Interval(v - rest * (v - low), v + rest * (high - v))
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

    From any number of (n_i,) in [0, 1].  A sample of one value over and over says nothing in a resample; the interval then
    reaches to the statistic of its mean's ends by :func:`bounded_mean`.

    Hand-worked: the mean of two samples, ten times 1 each, is 1 in [0.6915, 1].
    """
    within = bootstrap(
        lambda *s: statistic(*(float(np.mean(v)) for v in s)), *samples, level=level, resamples=resamples, seed=seed
    )
    arrays = [sample(s) for s in samples]
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
    found = bootstrap(auc, members, non_members, level=level, resamples=resamples, seed=seed)
    if found.low < found.high:
        return found
    pairs = min(np.size(members), np.size(non_members))
    return bounded_mean([auc(members, non_members)] * pairs, level=level)


def wilson(share: float, error: float, *, level: float = LEVEL) -> Interval:
    r"""Wilson's interval of a share whose standard error is known: never outside [0, 1].

    .. math:: \frac{p + z^2/2n}{1 + z^2/n} \pm \frac{z}{1 + z^2/n}\sqrt{\frac{p\,(1-p)}{n} + \frac{z^2}{4 n^2}},
        \qquad n = \frac{p\,(1 - p)}{e^2}

    n is the number of examples that would give the error e; InputError where p or e is 0 or p is 1, which give none.

    Hand-worked: p = 1/2 and e = 0.1 are n = 25, and 1/2 ± 1.96 / 1.1537 · √(0.01 + 0.001537) is [0.3175, 0.6825].

    Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    _check(level)
    if not (0 < share < 1 and error > 0):
        raise InputError(
            f"Wilson's interval needs a share between 0 and 1 and an error above 0, not {share} and {error}"
        )
    n = share * (1 - share) / error**2
    z = float(scipy_stats.norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def _others(n: int, level: float) -> float:
    """The largest share of examples that may be otherwise where n of n are alike."""
    return float(1 - ((1 - level) / 2) ** (1 / n))


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
    one, two = sample(a, "the first sample"), sample(b, "the second sample")
    if len(one) != len(two):
        raise InputError(f"paired samples must be of one length, not {len(one)} and {len(two)}")
    _check(level, resamples)
    rng = np.random.default_rng(seed)
    picks = (rng.integers(len(one), size=len(one)) for _ in range(resamples))
    return _percentiles(np.array([statistic(one[p], two[p]) for p in picks]), level)


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
    _check(level, resamples)
    rng, n = np.random.default_rng(seed), len(above)
    rows = max(1, BLOCK // n)
    found = []
    for done in range(0, resamples, rows):
        picks = rng.integers(n, size=(min(rows, resamples - done), n))
        found.append(ratio(above[picks].sum(axis=1), below[picks].sum(axis=1)))
    return _percentiles(np.concatenate(found), level)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Entry by entry a / b, and 0 where b is 0: precision, recall and F1 where there is nothing to find.

    From any shape to the same.  Hand-worked: (1, 0) / (2, 0) is (1/2, 0).
    """
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def clopper_pearson(successes: int, n: int, *, level: float = LEVEL) -> Interval:
    r"""Exact interval of a share, ``successes`` of ``n``: it covers the true share at least as often as ``level`` says.

    .. math:: \bigl[\,B_{\alpha/2}(k,\, n - k + 1),\; B_{1-\alpha/2}(k + 1,\, n - k)\bigr], \qquad \alpha = 1 - \text{level}

    B_q is the beta distribution's quantile; the bounds are 0 for k = 0 and 1 for k = n.

    Hand-worked: 0 of 10 has the upper bound 1 - 0.025^(1/10) = 0.3085: no leak in ten is no proof of none in four.

    Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    _check(level)
    if not 0 <= successes <= n or n == 0 or not (float(successes).is_integer() and float(n).is_integer()):
        raise InputError(f"{successes} of {n} is no share: give whole numbers, 0 ≤ successes ≤ n and n ≥ 1")
    found = scipy_stats.binomtest(int(successes), int(n)).proportion_ci(level, method="exact")
    return Interval(float(found.low), float(found.high))


def tost(a: ArrayLike, b: ArrayLike, margin: float, *, level: float = LEVEL) -> Equivalence:
    r"""Whether two means are *shown* to differ by less than ``margin``: two one-sided Welch tests.

    .. math:: p = \max\Bigl\{ P\bigl(t_\nu > \tfrac{d + m}{e}\bigr),\; P\bigl(t_\nu < \tfrac{d - m}{e}\bigr) \Bigr\},
        \qquad d = \bar a - \bar b, \quad e^2 = \tfrac{s_a^2}{n_a} + \tfrac{s_b^2}{n_b}

    From (n,) and (m,); ν is Welch–Satterthwaite's.  ``equivalent`` where p < α = 1 - ``level``, that is where the
    interval of the difference at level 1 - 2α (``low``, ``high``: 90 % by default) lies within ±``margin``.  It stands
    beside forget quality, since a test of difference that does not reject shows nothing of the kind.  Unpaired: what two
    models have in common on the same examples only makes it more careful.

    Hand-worked: (0, 2) and (0, 2) have d = 0, e = √2, ν = 2 and the 90 % interval ±2.92 · 1.414 = ±4.129.

    Schuirmann 1987, doi:10.1007/BF01068419; Welch 1947, doi:10.1093/biomet/34.1-2.28.
    """
    _check(level)
    one, two = sample(a, "the first sample"), sample(b, "the second sample")
    if len(one) < 2 or len(two) < 2:
        raise InputError("an equivalence test needs at least two numbers in each sample")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise InputError("an equivalence test compares means, so every number must be finite")
    if not margin > 0:
        raise InputError(f"the margin of an equivalence test must be above 0, not {margin}")
    difference = float(one.mean() - two.mean())
    va, vb = one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)
    error = float(np.sqrt(va + vb))
    if error == 0:
        same = abs(difference) < margin
        return Equivalence(difference, difference, difference, 0.0 if same else 1.0, same)
    part = va / (va + vb)  # of the squared error; ν from shares, since squares of tiny variances are 0
    freedom = 1 / (part**2 / (len(one) - 1) + (1 - part) ** 2 / (len(two) - 1))
    t = scipy_stats.t(freedom)
    p = max(float(t.sf((difference + margin) / error)), float(t.cdf((difference - margin) / error)))
    half = float(t.ppf(level)) * error
    return Equivalence(difference, difference - half, difference + half, p, p < 1 - level)


def _check(level: float, resamples: int = 1) -> None:
    if not 0 < level < 1:
        raise InputError(f"a confidence level must lie between 0 and 1, not {level}")
    if resamples < 1:
        raise InputError(f"a bootstrap needs at least one resample, not {resamples}")


def _percentiles(found: Array, level: float) -> Interval:
    """The interval between the (1 - level) / 2 quantiles of ``found`` (resamples,)."""
    if not np.isfinite(found).all():
        raise InputError(f"the statistic is {found[~np.isfinite(found)][0]} on a resample, so it has no interval")
    tail = (1 - level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(low), float(high))
