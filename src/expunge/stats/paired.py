"""Several measurements of the same rows: intervals of any function of their means, equivalence, AUCs of the same texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from expunge.errors import InputError
from expunge.stats.ranks import Equivalence, auc
from expunge.stats.resampling import BLOCK, RESAMPLES, bounded_mean, picks, resampled_aucs
from expunge.stats.samples import LEVEL, Array, Interval, check_level, sample


@dataclass(frozen=True)
class Estimate:
    """A statistic of n rows: its value and (``resamples``,) what it is on resamples of them, in order.

    ``ends``: values that it may take although no resample does, since a measurement of the rows never varies; ``error``: its
    standard error, 0 where its distribution is bounded and the resamples alone are to say how far it reaches.
    """

    value: float
    n: int
    drawn: Array = field(repr=False)
    ends: tuple[float, ...] = ()
    error: float = 0.0

    def interval(self, level: float = LEVEL) -> Interval:
        r"""Expanded percentile interval: of n rows the percentiles :math:`\Phi(\pm\sqrt{n/(n-1)}\;t_{n-1})`.

        The percentile bootstrap's is too short on few rows, by about what Student's t is wider than the normal distribution.
        Of very few a resample cannot reach far enough, so that on either side it is at least :math:`t_{n-1}` standard errors
        long: of 1500 simulated studies of 8 rows 94.7 % are covered for 92.0 %, of 40 rows 95.3 % for 94.1 %.

        Hesterberg 2015, doi:10.1080/00031305.2015.1089789.
        """
        check_level(level)
        tail = expanded_tail(self.n, level)
        low, high = np.quantile(self.drawn, [tail, 1 - tail])
        half = self.error and students_t(self.n, level) * self.error
        return Interval(min(float(low), *self.ends, self.value - half), max(float(high), *self.ends, self.value + half))

    def p_at_most(self, limit: float) -> float:
        """One-sided p of "it is at most ``limit``": small where it lies clearly above."""
        return float(((self.drawn <= limit).sum() + 1) / (len(self.drawn) + 1))

    def p_at_least(self, limit: float) -> float:
        """One-sided p of "it is at least ``limit``": small where it lies clearly below."""
        return float(((self.drawn >= limit).sum() + 1) / (len(self.drawn) + 1))


def expanded_tail(n: int, level: float) -> float:
    """The lower percentile of :meth:`Estimate.interval`; 0 for a single row.

    Hand-worked: 10 rows at 95 %: t₉ = 2.262, times √(10/9) is 2.385, and Φ(-2.385) = 0.00855 in place of 0.025.
    """
    if n < 2:
        return 0.0
    return float(scipy_stats.norm.cdf(-np.sqrt(n / (n - 1)) * students_t(n, level)))


def students_t(n: int, level: float) -> float:
    """The two-sided quantile of Student's distribution for n rows."""
    return float(scipy_stats.t(n - 1).ppf((1 + level) / 2))


def of_row_means(
    statistic: Callable[..., Array], *samples: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    r"""A function of the means of several measurements of the *same* rows, which are resampled together.

    .. math:: T\bigl(\bar a, \bar b, \dots\bigr), \qquad a, b, \dots \in [0, 1]^n

    From any number of (n,), entry i of all being row i; ``statistic`` takes their means, and arrays of means as well.
    If the *first* measurement has one value over and over, it does not vary between resamples; the interval then reaches to
    the statistic of that mean's ends by :func:`~expunge.stats.bounded_mean`.

    Hand-worked: the difference of (1, 0) and (0, 0) is resampled to 0, 1/2, 1; that of (0, 0) and (0, 0) has the ends 0 and
    1 - 0.025^(1/2) = 0.842.
    """
    arrays = [sample(s, f"sample {i + 1}") for i, s in enumerate(samples)]
    if not arrays or len({len(a) for a in arrays}) > 1:
        raise InputError("paired samples must be of one length, at least one: an entry a row")
    check_level(LEVEL, resamples)
    stacked = np.stack(arrays)  # (k, n)
    means = np.concatenate(
        [stacked[:, p[0]].mean(axis=2) for p in _picks((stacked.shape[1],), resamples, seed)], axis=1
    )
    value = [a.mean() for a in arrays]
    ends: list[float] = []
    first = arrays[0]
    if (first == first[0]).all() and 0 <= first[0] <= 1:
        bounds = bounded_mean(first)
        ends = [float(statistic(*map(np.float64, [end, *value[1:]]))) for end in (bounds.low, bounds.high)]
    found = np.asarray(statistic(*means), dtype=np.float64)
    n = stacked.shape[1]
    error = float(np.std(found)) * float(np.sqrt(n / (n - 1))) if n > 1 else 0.0
    return Estimate(float(statistic(*value)), n, np.sort(found), tuple(ends), error)


def tost_paired(a: ArrayLike, b: ArrayLike, margin: float, *, level: float = LEVEL) -> Equivalence:
    r"""Whether two means over the *same* rows are shown to differ by less than ``margin``: two one-sided t tests.

    .. math:: p = \max\Bigl\{ P\bigl(t_{n-1} > \tfrac{\bar d + m}{e}\bigr),\;
        P\bigl(t_{n-1} < \tfrac{\bar d - m}{e}\bigr) \Bigr\}, \qquad d_i = a_i - b_i, \quad e = s_d / \sqrt n

    From (n,) and (n,).  As :func:`~expunge.stats.tost`, paired: what the rows have in common drops out.

    Hand-worked: a = (1, 2, 3), b = (1, 2, 2): d̄ = 1/3, e = 1/3, t₂ at 95 % is 2.92, the 90 % interval 0.333 ± 0.973.

    Schuirmann 1987, doi:10.1007/BF01068419.
    """
    check_level(level)
    first, second = sample(a, "the first sample"), sample(b, "the second sample")
    if len(first) != len(second) or len(first) < 2:
        raise InputError(f"paired samples must be of one length, at least 2, not {len(first)} and {len(second)}")
    if not margin > 0:
        raise InputError(f"the margin of an equivalence test must be above 0, not {margin}")
    d = first - second
    mean, error = float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d)))
    if error == 0:
        equivalent = abs(mean) < margin
        return Equivalence(mean, mean, mean, 0.0 if equivalent else 1.0, equivalent)
    t = scipy_stats.t(len(d) - 1)
    p = max(float(t.sf((mean + margin) / error)), float(t.cdf((mean - margin) / error)))
    half = float(t.ppf(level)) * error
    return Equivalence(mean, mean - half, mean + half, p, p < 1 - level)


def auc_estimate(
    members: ArrayLike,
    non_members: ArrayLike,
    control: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The :func:`~expunge.stats.auc` of a membership score, or its difference from that of a ``control`` on the same texts.

    From (n,) and (m,); of the control (members, non-members) too.  Texts are resampled, for both models the same ones.

    Hand-worked: members (0, 0), non-members (1, 1) and the same control have the difference 0 in every resample.
    """
    sets = [(sample(members, "the members"), sample(non_members, "the non-members"))]
    if control is not None:
        sets.append((sample(control[0], "the control's members"), sample(control[1], "the control's non-members")))
        if [len(s) for s in sets[0]] != [len(s) for s in sets[1]]:
            raise InputError("the control's scores must be of the same texts")
    sizes = tuple(len(s) for s in sets[0])
    parts = [[resampled_aucs(*scores, *drawn) for scores in sets] for drawn in _picks(sizes, resamples, seed)]
    first = np.concatenate([p[0] for p in parts])
    found = first if control is None else first - np.concatenate([p[1] for p in parts])
    values = [auc(*scores) for scores in sets]
    value = values[0] if control is None else values[0] - values[1]
    ends: tuple[float, ...] = ()
    if control is None and value in (0.0, 1.0):
        bounds = bounded_mean([value] * min(sizes))
        ends = (bounds.low, bounds.high)
    return Estimate(value, min(sizes), np.sort(found), ends)


def _picks(sizes: tuple[int, ...], resamples: int, seed: int) -> Iterable[list[NDArray[np.int64]]]:
    """:func:`~expunge.stats.resampling.picks`, kept for the next figure of as many rows where they are few."""
    return _kept_picks(sizes, resamples, seed) if sum(sizes) * resamples <= BLOCK else picks(sizes, resamples, seed)


@lru_cache(maxsize=8)
def _kept_picks(sizes: tuple[int, ...], resamples: int, seed: int) -> list[list[NDArray[np.int64]]]:
    return list(picks(sizes, resamples, seed))
