"""Bootstrap intervals: by hand, against a loop, and over many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from expunge import stats
from expunge.errors import InputError

NAN = float("nan")


def test_a_mean_is_covered_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    for level, low, high in ((0.95, 0.88, 0.98), (0.5, 0.42, 0.58)):
        hits = []
        for seed in range(300):
            interval = stats.bootstrap_mean(rng.exponential(size=60), seed=seed, resamples=300, level=level)
            hits.append(interval.low <= 1 <= interval.high)
        assert low < np.mean(hits) < high


def test_an_auc_is_covered_as_often_as_the_level_says():
    """Normal scores one deviation apart: P(non-member > member) = Φ(1/√2) = 0.7602."""
    rng, hits = np.random.default_rng(0), []
    for seed in range(100):
        members, non_members = rng.normal(size=40), rng.normal(1, size=40)
        interval = stats.bootstrap(stats.auc, members, non_members, resamples=100, seed=seed, level=0.9)
        hits.append(interval.low <= 0.7602 <= interval.high)
    assert 0.8 < np.mean(hits) < 0.97


def test_a_bootstrap_by_hand():
    """Means of (0, 1) resampled are 0, ½, 1 with chances ¼, ½, ¼, as in the docstring."""
    for f in (stats.bootstrap_mean, lambda v, **k: stats.bootstrap(np.mean, v, **k)):
        assert f([0, 1], level=0.4) == stats.Interval(0.5, 0.5)
        assert f([0, 1], level=0.6) == stats.Interval(0, 1)
        assert f([3] * 5) == stats.Interval(3, 3)


@pytest.mark.parametrize("block", [1, 1000, 10**9])
def test_both_bootstraps_give_the_same_numbers_and_repeat_by_seed(block, monkeypatch):
    monkeypatch.setattr(stats.resampling, "BLOCK", block)
    values = np.random.default_rng(0).normal(size=77)
    fast = stats.bootstrap_mean(values)
    slow = stats.bootstrap(lambda v: float(np.mean(v)), values)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), rel=1e-12)
    assert fast == stats.bootstrap_mean(values) != stats.bootstrap_mean(values, seed=1)
    assert slow != stats.bootstrap(lambda v: float(np.mean(v)), values, seed=1)


def test_a_bootstrap_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).normal(size=200)
    interval = stats.bootstrap_mean(values, resamples=4000)
    error = values.std() / np.sqrt(200)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)


def test_samples_are_resampled_on_their_own():
    """The variance of a difference of two means is the sum of theirs, even where the samples are the same numbers."""
    a = np.random.default_rng(0).normal(size=100)
    interval = stats.bootstrap(lambda x, y: float(np.mean(x) - np.mean(y)), a, a - 1, resamples=3000)
    half = 1.96 * a.std() * math.sqrt(2 / 100)
    assert (interval.low, interval.high) == pytest.approx((1 - half, 1 + half), abs=0.03)


def test_pairs_are_resampled_together():
    a = np.random.default_rng(0).normal(size=50)
    paired = stats.paired_bootstrap(lambda x, y: float(np.mean(x - y)), a, a - 1)
    assert paired.low == pytest.approx(1) == pytest.approx(paired.high)
    b = a + np.random.default_rng(1).normal(size=50)  # as one sample of differences
    together = stats.paired_bootstrap(lambda x, y: float(np.mean(x - y)), a, b)
    differences = stats.bootstrap_mean(a - b)
    assert (together.low, together.high) == pytest.approx((differences.low, differences.high))
    assert together != stats.paired_bootstrap(lambda x, y: float(np.mean(x - y)), a, b, seed=1)
    with pytest.raises(InputError, match="one length, not 2 and 3"):
        stats.paired_bootstrap(lambda x, y: 0.0, [1, 2], [1, 2, 3])


def test_a_bootstrap_that_cannot_be_is_told():
    with pytest.raises(InputError, match="no sample"):
        stats.bootstrap(lambda: 0.0)
    with pytest.raises(InputError, match="nan on a resample"):
        stats.bootstrap(lambda v: NAN, [1, 2])
    with pytest.raises(InputError, match="inf on a resample"):
        stats.bootstrap_mean([1, math.inf])
    for f in (stats.bootstrap_mean, lambda v, **k: stats.bootstrap(np.mean, v, **k)):
        with pytest.raises(InputError, match="at least one resample, not 0"):
            f([1, 2], resamples=0)
        with pytest.raises(InputError, match="between 0 and 1, not 95"):
            f([1, 2], level=95)
    for wrong in ({"level": 0}, {"resamples": -1}):
        with pytest.raises(InputError):
            stats.paired_bootstrap(lambda x, y: 0.0, [1], [1], **wrong)


def test_ratio_by_hand():
    """a = (0, 1), b = (1, 3): resampled to 0, 1/4, 1/3 with chances 1/4, 1/2, 1/4; the mean of ratios would give others."""
    assert stats.ratio_bootstrap([0, 1], [1, 3], level=0.4) == stats.Interval(1 / 4, 1 / 4)
    assert stats.ratio_bootstrap([0, 1], [1, 3], level=0.6) == stats.Interval(0, pytest.approx(1 / 3))
    assert stats.ratio([1, 0, 3, 1], [2, 0, 4, 1 / 2]).tolist() == [1 / 2, 0, 3 / 4, 2]
    assert float(stats.ratio(1.0, 0.0)) == 0
    assert stats.ratio_bootstrap([0, 0], [0, 0]) == stats.Interval(0, 0)
    assert stats.ratio_bootstrap([2, 4], [1, 2]) == stats.Interval(2, 2)  # together: 2 of 1 never meets 2


def test_ratio_beside_the_mean_and_the_paired_bootstrap(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40) + 0.1
    assert stats.ratio_bootstrap(a, np.ones(40)) == stats.bootstrap_mean(a)
    whole = stats.ratio_bootstrap(a, b, seed=3)
    paired = stats.paired_bootstrap(lambda x, y: float(x.sum() / y.sum()), a, b, seed=3)
    assert (whole.low, whole.high) == pytest.approx((paired.low, paired.high))
    monkeypatch.setattr(stats.resampling, "BLOCK", 100)  # two resamples at a time
    assert stats.ratio_bootstrap(a, b, seed=3) == whole


def test_ratio_bad_input():
    with pytest.raises(InputError, match="of one length, not 2 and 1"):
        stats.ratio_bootstrap([1, 2], [1])
    with pytest.raises(InputError, match="the denominator: entry 1 is negative"):
        stats.ratio_bootstrap([1, 2], [1, -1])
    with pytest.raises(InputError, match="the numerator: empty"):
        stats.ratio_bootstrap([], [])
    with pytest.raises(InputError, match="level must lie"):
        stats.ratio_bootstrap([1], [1], level=1)


@pytest.mark.parametrize("n", [1, 2, 10, 400])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_at_an_end_has_the_exact_interval(n, value):
    interval = stats.bounded_mean([value] * n)
    exact = scipy.stats.binomtest(int(value * n), n).proportion_ci(0.95, method="exact")
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert 0 <= interval.low < interval.high <= 1


def test_bounded_means():
    hits = [1, 0, 0, 1, 0]
    assert stats.bounded_mean(hits) == stats.clopper_pearson(2, 5)
    graded = [0.2, 0.9, 0.4]
    assert stats.bounded_mean(graded) == stats.bootstrap_mean(graded)
    q = 1 - 0.025 ** (1 / 10)
    same = stats.bounded_mean([0.25] * 10)
    assert (same.low, same.high) == pytest.approx((0.25 - q * 0.25, 0.25 + q * 0.75))
    apart = stats.bounded_mean([0.0] * 10, -1, 1)  # two models that agree on ten questions
    assert (apart.low, apart.high) == pytest.approx((-q, q))
    with pytest.raises(InputError, match=r"must lie between 0 and 1, and one is 1\.5"):
        stats.bounded_mean([0.5, 1.5])


def test_the_interval_of_a_constant_covers():
    """8 draws from a share of 0.3, some samples without a hit: the interval holds it as often as its level."""
    chances = scipy.stats.binom.pmf(range(9), 8, 0.3)
    intervals = [stats.bounded_mean([1.0] * hits + [0.0] * (8 - hits)) for hits in range(9)]
    assert sum(c for c, i in zip(chances, intervals, strict=True) if i.low <= 0.3 <= i.high) >= 0.95


def test_an_auc_of_an_end_has_a_width():
    interval = stats.auc_interval([0, 0.1, 0.2], [1, 2, 3, 4])
    assert (interval.low, interval.high) == pytest.approx((0.025 ** (1 / 3), 1))
    interval = stats.auc_interval([1.0] * 5, [1.0] * 9)  # all ties
    assert 0 < interval.low < 0.5 < interval.high < 1
    rng = np.random.default_rng(3)
    many = rng.integers(40, size=300) / 7, rng.random(700) * 5 - 0.2  # more than one block of resamples
    for a, b in (([0.1, 0.5, 0.9, 0.3], [0.4, 0.8, 1.0]), ([-np.inf, 1, 1, 2], [1, 1, 3, np.inf]), many):
        assert stats.auc_interval(a, b, seed=5) == stats.bootstrap(stats.auc, a, b, seed=5)


def test_a_statistic_of_means():
    def mean(*means):
        return float(np.mean(means))

    rng = np.random.default_rng(1)
    a, b = rng.random(20), rng.random(30)
    same = stats.bootstrap(lambda *s: float(np.mean([np.mean(v) for v in s])), a, b)
    assert stats.bootstrap_of_means(mean, a, b) == same
    interval = stats.bootstrap_of_means(stats_harmonic, [0.0] * 10, [1.0] * 10)
    assert interval.low == 0 and interval.high == pytest.approx(2 / (1 / (1 - 0.025**0.1) + 1))


def stats_harmonic(*means):
    return stats.harmonic_mean(means)
