"""Tests, areas and intervals that stand behind every figure.  numpy and scipy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from expunge.errors import InputError

Array = NDArray[np.float64]
LEVEL, RESAMPLES = 0.95, 1000


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
    """``values`` (n,) as numbers; InputError where there are none, or one is NaN."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} must be one list of numbers and not empty, its shape is {array.shape}")
    if np.isnan(array).any():
        raise InputError(f"{name}: entry {int(np.isnan(array).argmax())} is NaN")
    return array


def harmonic_mean(values: ArrayLike) -> float:
    r""":math:`n / \sum_i 1/v_i`; 0 as soon as one value is 0.

    Hand-worked: (1, 1/2) gives 2 / (1 + 2) = 2/3.
    """
    array = sample(values, "the harmonic mean's values")
    if (array < 0).any():
        raise InputError(f"the harmonic mean's values: entry {int((array < 0).argmax())} is negative")
    return 0.0 if (array == 0).any() else float(len(array) / (1 / array).sum())


def ks_two_sample(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """(largest distance of the two empirical distributions, its p-value), as ``scipy.stats.ks_2samp``."""
    found = scipy_stats.ks_2samp(sample(a), sample(b))
    return float(found.statistic), float(found.pvalue)


def auc(members: ArrayLike, non_members: ArrayLike) -> float:
    r"""Area under the ROC curve, :math:`P(s_{\text{non-member}} > s_{\text{member}}) + \tfrac12 P(=)`.

    Scores are higher for non-members, as in OpenUnlearning: 1 means the members are plainly seen, 1/2 that they are not.

    Hand-worked: members (1, 2), non-members (2, 3): pairs 1<2, 1<3, 2=2, 2<3 give 3.5 / 4.
    """
    seen, unseen = sample(members, "the members"), sample(non_members, "the non-members")
    ranks = scipy_stats.rankdata(np.concatenate([seen, unseen]))
    above = ranks[len(seen) :].sum() - len(unseen) * (len(unseen) + 1) / 2
    return float(above / (len(seen) * len(unseen)))


def tpr_at_fpr(members: ArrayLike, non_members: ArrayLike, fpr: float = 0.01) -> float:
    """Share of members found at the loosest threshold that calls at most ``fpr`` of the non-members members.

    A text is called a member where its score is *below* the threshold; with fewer than 1 / ``fpr`` non-members none may be.

    Hand-worked: members (0, 1, 5), non-members (2, 3) and fpr 0: the threshold is 2, which finds 2 of 3.
    """
    seen, unseen = sample(members, "the members"), np.sort(sample(non_members, "the non-members"))
    allowed = int(np.floor(fpr * len(unseen) + 1e-9))
    threshold = unseen[allowed] if allowed < len(unseen) else np.inf
    return float((seen < threshold).mean())


def bootstrap_mean(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean of ``values`` (n,)."""
    array = sample(values)
    picks = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    return _interval(array[picks].mean(axis=1), level)


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of ``statistic(*samples)``, every sample resampled on its own."""
    arrays = [sample(s) for s in samples]
    rng = np.random.default_rng(seed)
    found = [statistic(*(a[rng.integers(len(a), size=len(a))] for a in arrays)) for _ in range(resamples)]
    return _interval(np.array(found), level)


def paired_bootstrap(
    statistic: Callable[[Array, Array], float],
    a: ArrayLike,
    b: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The same of two measurements of the same examples: both are resampled together."""
    one, two = sample(a), sample(b)
    if len(one) != len(two):
        raise InputError(f"paired samples must be of one length, not {len(one)} and {len(two)}")
    rng = np.random.default_rng(seed)
    picks = (rng.integers(len(one), size=len(one)) for _ in range(resamples))
    return _interval(np.array([statistic(one[p], two[p]) for p in picks]), level)


def clopper_pearson(successes: int, n: int, *, level: float = LEVEL) -> Interval:
    """Exact interval of a share: ``successes`` of ``n``.

    Hand-worked: 0 of n has the upper bound 1 - (α/2)^(1/n).
    """
    if not 0 <= successes <= n or n == 0:
        raise InputError(f"{successes} of {n} is no share")
    found = scipy_stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return Interval(float(found.low), float(found.high))


def tost(a: ArrayLike, b: ArrayLike, margin: float, *, level: float = LEVEL) -> Equivalence:
    """Whether two means are *shown* to differ by less than ``margin``: two one-sided Welch tests.

    Equivalent where both reject, that is where the interval at level 1 - 2α lies within ±``margin``.  A test of difference
    that does not reject shows nothing of the kind.
    """
    one, two = sample(a), sample(b)
    if len(one) < 2 or len(two) < 2:
        raise InputError("an equivalence test needs two examples in each sample")
    if margin <= 0:
        raise InputError(f"the margin of an equivalence test must be above 0, not {margin}")
    difference = float(one.mean() - two.mean())
    va, vb = one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)
    error = float(np.sqrt(va + vb))
    if error == 0:
        same = abs(difference) < margin
        return Equivalence(difference, difference, difference, 0.0 if same else 1.0, same)
    freedom = (va + vb) ** 2 / (va**2 / (len(one) - 1) + vb**2 / (len(two) - 1))
    t = scipy_stats.t(freedom)
    p = max(float(t.sf((difference + margin) / error)), float(t.cdf((difference - margin) / error)))
    half = float(t.ppf(level)) * error
    return Equivalence(difference, difference - half, difference + half, p, p < 1 - level)


def _interval(found: Sequence[float] | Array, level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(found), [tail, 1 - tail])
    return Interval(float(low), float(high))
