"""Each statistic against a number worked by hand, a brute-force loop, or what it promises over many draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge import stats
from expunge.errors import InputError

numbers = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


def test_harmonic_mean_by_hand():
    assert stats.harmonic_mean([1, 0.5]) == pytest.approx(2 / 3)
    assert stats.harmonic_mean([1, 0, 5]) == 0.0
    with pytest.raises(InputError, match="entry 1 is negative"):
        stats.harmonic_mean([1, -1])


@given(numbers, numbers)
def test_auc_is_the_share_of_pairs(members, non_members):
    pairs = [(u > s) + 0.5 * (u == s) for s, u in itertools.product(members, non_members)]
    assert stats.auc(members, non_members) == pytest.approx(sum(pairs) / len(pairs))


@given(numbers, numbers, st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_true_positives_by_trying_every_threshold(members, non_members, fpr):
    best = 0.0
    for threshold in [*members, *non_members, 99]:
        if np.mean([u < threshold for u in non_members]) <= fpr + 1e-9:
            best = max(best, np.mean([s < threshold for s in members]))
    assert stats.tpr_at_fpr(members, non_members, fpr) == pytest.approx(best)


def test_ks_by_hand():
    """Of (1, 2, 3) and (4, 5, 6) nothing overlaps: distance 1, and 2 of the 20 ways to mix them are as far apart."""
    statistic, p = stats.ks_two_sample([1, 2, 3], [4, 5, 6])
    assert statistic == 1 and p == pytest.approx(0.1)


def test_a_mean_is_covered_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    hits = []
    for seed in range(300):
        interval = stats.bootstrap_mean(rng.exponential(size=60), seed=seed, resamples=300)
        hits.append(interval.low <= 1 <= interval.high)
    assert 0.88 < np.mean(hits) < 0.98


def test_both_bootstraps_agree_on_a_mean_and_repeat_by_seed():
    values = np.random.default_rng(0).normal(size=200)
    fast = stats.bootstrap_mean(values, resamples=4000)
    slow = stats.bootstrap(lambda v: float(np.mean(v)), values, resamples=4000)
    assert fast == stats.bootstrap_mean(values, resamples=4000) != stats.bootstrap_mean(values, resamples=4000, seed=1)
    error = values.std() / np.sqrt(200)
    for found in (fast, slow):
        assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
        assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)


def test_pairs_are_resampled_together():
    a = np.random.default_rng(0).normal(size=50)
    paired = stats.paired_bootstrap(lambda x, y: float(np.mean(x - y)), a, a - 1)
    alone = stats.bootstrap(lambda x, y: float(np.mean(x) - np.mean(y)), a, a - 1)
    assert paired.low == pytest.approx(1) == pytest.approx(paired.high) and alone.high - alone.low > 0.3
    with pytest.raises(InputError, match="one length, not 2 and 3"):
        stats.paired_bootstrap(lambda x, y: 0.0, [1, 2], [1, 2, 3])


def test_clopper_pearson_by_hand():
    """0 of 10: no lower bound, and the upper is where 10 misses in a row have probability 2.5 %."""
    none = stats.clopper_pearson(0, 10)
    assert none.low == 0 and none.high == pytest.approx(1 - 0.025**0.1)
    assert stats.clopper_pearson(10, 10).low == pytest.approx(0.025**0.1)
    with pytest.raises(InputError, match="3 of 2 is no share"):
        stats.clopper_pearson(3, 2)


def test_equivalence_is_shown_not_assumed():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=400), rng.normal(size=400)
    assert stats.tost(a, b, 0.3).equivalent and not stats.tost(a, b + 1, 0.3).equivalent
    few = stats.tost(a[:5], b[:5], 0.3)  # no difference seen, and none excluded
    assert not few.equivalent and few.low < few.difference < few.high
    assert stats.tost([1, 1], [1, 1], 0.1).equivalent and not stats.tost([1, 1], [2, 2], 0.1).equivalent
    with pytest.raises(InputError, match="must be above 0"):
        stats.tost(a, b, 0)


def test_equivalence_by_hand():
    """(0, 2) and (0, 2): means equal, each variance 2, standard error √2, 2 degrees of freedom.

    The interval at level 0.9 is ±t(0.95, 2) √2 = ±2.92 · 1.414 = ±4.129, so a margin of 4.2 is shown and one of 4.0 is not.
    """
    found = stats.tost([0, 2], [0, 2], 4.2)
    assert found.high == pytest.approx(4.129, abs=1e-3) and found.equivalent
    assert not stats.tost([0, 2], [0, 2], 4.0).equivalent


@given(st.integers(2, 30), st.floats(0.05, 2))
def test_the_verdict_is_the_intervals(n, margin):
    rng = np.random.default_rng(n)
    found = stats.tost(rng.normal(size=n), rng.normal(size=n), margin)
    assert found.equivalent == (-margin < found.low and found.high < margin)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [[1.0]]])
def test_what_is_no_sample_is_told(bad):
    for f in (stats.harmonic_mean, stats.bootstrap_mean, lambda v: stats.auc(v, [1]), lambda v: stats.auc([1], v)):
        with pytest.raises(InputError):
            f(bad)
