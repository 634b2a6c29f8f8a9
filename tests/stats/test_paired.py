"""Intervals of functions of row means against simulation and brute force; TOST against scipy; AUC differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from expunge.errors import InputError
from expunge.stats import auc, auc_estimate, of_row_means, tost_paired
from expunge.stats.paired import expanded_tail


def test_resamples_are_all_that_can_be_drawn():
    """Of three rows there are 27 resamples: shares among many drawn are those."""
    a, b = np.array([0.0, 0.5, 1.0]), np.array([0.2, 0.2, 0.8])
    found = of_row_means(lambda x, y: x - y, a, b, resamples=20_000)
    every = [(a[list(p)] - b[list(p)]).mean() for p in itertools.product(range(3), repeat=3)]
    values, counts = np.unique(np.round(found.drawn, 9), return_counts=True)
    expected, often = np.unique(np.round(every, 9), return_counts=True)
    assert np.array_equal(values, expected)
    assert np.abs(counts / 20_000 - often / 27).max() < 0.015
    assert found.value == pytest.approx((a - b).mean()) and found.n == 3


def test_rows_stay_together():
    a = np.random.default_rng(0).random(30)
    found = of_row_means(lambda x, y: x - y, a, a - 0.25)
    assert found.interval().low == pytest.approx(0.25) and found.interval().high == pytest.approx(0.25)


def test_the_tail_is_wider_on_few_rows():
    assert expanded_tail(10, 0.95) == pytest.approx(0.00855, abs=5e-6)
    assert expanded_tail(100_000, 0.95) == pytest.approx(0.025, abs=1e-4)
    assert expanded_tail(1, 0.95) == 0


def test_a_first_measurement_that_never_varies_has_a_width():
    found = of_row_means(lambda x, y: x - y, [0.0] * 10, [0.5] * 10).interval()
    assert found.low == pytest.approx(-0.5) and found.high == pytest.approx(-0.5 + 1 - 0.025**0.1)
    other = of_row_means(lambda x, y: x - y, [0.1, 0.2, 0.3], [0.5] * 3).interval()
    assert other.low >= -0.4 - 0.2 and other.high <= -0.2 + 0.2, "its ends would be -0.5 and 0.208"


def test_an_interval_of_few_rows_is_at_least_as_long_as_students():
    """Of 0.1, 0.2, 0.3 the standard error is 0.1 / √3 and t₂ = 4.303: 0.2 ± 0.248; no resample's mean is below 0.1."""
    found = of_row_means(lambda x: x, [0.1, 0.2, 0.3], resamples=20_000).interval()
    assert (found.low, found.high) == pytest.approx((0.2 - 0.248, 0.2 + 0.248), abs=0.003)
    assert of_row_means(lambda x: x, [0.3]).interval().high > 0.3 - 1e-9, "one row has no standard error"


def test_p_values_are_shares_of_resamples():
    found = of_row_means(lambda x: x, [0.1, 0.4, 0.4, 0.4, 0.5] * 8, resamples=999)
    assert found.p_at_most(0.2) == pytest.approx(0.001) and found.p_at_least(0.6) == pytest.approx(0.001)
    assert found.p_at_most(1.0) == 1.0 and 0.3 < found.p_at_least(0.36) < 0.7


@pytest.mark.parametrize("wrong", [((), ()), (([1, 2], [1]))])
def test_rows_must_be_the_same(wrong):
    with pytest.raises(InputError):
        of_row_means(lambda *x: x[0], *wrong)


def test_tost_paired_is_two_t_tests_of_the_differences():
    rng = np.random.default_rng(1)
    a = rng.normal(size=25)
    b = a + rng.normal(0.02, 0.1, size=25)
    found = tost_paired(a, b, 0.1)
    d = a - b
    low = scipy_stats.ttest_1samp(d, -0.1, alternative="greater").pvalue
    high = scipy_stats.ttest_1samp(d, 0.1, alternative="less").pvalue
    assert found.p == pytest.approx(max(low, high)) and found.equivalent == (max(low, high) < 0.05)
    interval = scipy_stats.ttest_1samp(d, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    worked = tost_paired([1, 2, 3], [1, 2, 2], 1.0)
    assert (worked.low, worked.high) == pytest.approx((1 / 3 - 0.9733, 1 / 3 + 0.9733), abs=1e-3)
    same = tost_paired([1, 2], [1, 2], 0.1)
    assert same.equivalent and not tost_paired([1, 2], [0, 1], 0.1).equivalent
    with pytest.raises(InputError, match="margin"):
        tost_paired([1, 2], [1, 2], 0)


def test_an_auc_against_a_control_on_the_same_texts():
    rng = np.random.default_rng(2)
    members, others = rng.normal(0, 1, 20), rng.normal(0.5, 1, 25)
    alone = auc_estimate(members, others)
    assert alone.value == auc(members, others) and alone.interval().low < alone.value < alone.interval().high
    same = auc_estimate(members, others, (members, others))
    assert same.value == 0 and (same.drawn == 0).all()
    better = auc_estimate(members, others, (members + 1, others))
    assert better.value == pytest.approx(auc(members, others) - auc(members + 1, others)) and better.value > 0.2
    certain = auc_estimate([0, 0, 0], [1, 1, 1]).interval()
    assert certain.low == pytest.approx(0.025 ** (1 / 3)) and certain.high == 1
    with pytest.raises(InputError, match="same texts"):
        auc_estimate(members, others, (members[1:], others))


def _coverage(n: int, runs: int, resamples: int, draw) -> float:
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(runs):
        rows, truth, statistic = draw(rng, n)
        interval = of_row_means(statistic, *rows, resamples=resamples).interval()
        hits += interval.low <= truth <= interval.high
    return hits / runs


def _ratios(rng, n):
    """Shares of three models that go together row by row, and the remaining share of their means."""
    u, f, zero = (rng.beta(a, b, n) for a, b in ((1, 4), (5, 1), (1, 6)))
    truth = (1 / 5 - 1 / 7) / (5 / 6 - 1 / 7)
    return (u, f, zero), truth, lambda a, b, c: (a - c) / (b - c)


def test_intervals_cover_what_they_say():
    """Of simulated studies with 12 rows; the plain percentiles cover about 91 %."""
    assert 0.92 <= _coverage(12, 200, 200, _ratios) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 15, 40])
def test_intervals_cover_what_they_say_at_length(n):
    assert 0.93 <= _coverage(n, 3000, 1000, _ratios) <= 0.975
