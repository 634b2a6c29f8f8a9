"""Statistics of order and equivalence: by hand, by brute force, and over many draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from expunge import stats
from expunge.errors import InputError

NAN = float("nan")


numbers = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


def test_ks_by_hand():
    """Of (1, 2, 3) and (4, 5, 6) nothing overlaps: distance 1, and 2 of the 20 ways to mix them are as far apart."""
    statistic, p = stats.ks_two_sample([1, 2, 3], [4, 5, 6])
    assert statistic == 1 and p == pytest.approx(0.1)


@given(st.permutations(range(7)), st.integers(1, 6))
def test_ks_by_all_ways_to_mix_two_samples(mixed, n):
    """The exact p is the share of the ways to pick n of 7 that lie as far apart as ours."""

    def distance(ours):
        theirs = [x for x in range(7) if x not in ours]
        return max(
            abs(sum(x <= at for x in ours) / len(ours) - sum(x <= at for x in theirs) / len(theirs)) for at in range(7)
        )

    statistic, p = stats.ks_two_sample(mixed[:n], mixed[n:])
    assert statistic == pytest.approx(distance(mixed[:n]))
    ways = [distance(ours) for ours in itertools.combinations(range(7), n)]
    assert p == pytest.approx(np.mean([d >= statistic - 1e-9 for d in ways]))


def test_ks_tells_forty_apart_from_thirteen_on():
    """The docstring's number: samples of 40, one shifted by 12 or 13 places."""
    at = np.arange(40)
    for shift, significant in ((12, False), (13, True)):
        statistic, p = stats.ks_two_sample(at + 0.5, at + shift)
        assert statistic == pytest.approx(shift / 40) and (p < 0.05) == significant


@given(numbers, numbers)
def test_auc_is_the_share_of_pairs(members, non_members):
    pairs = [(u > s) + 0.5 * (u == s) for s, u in itertools.product(members, non_members)]
    assert stats.auc(members, non_members) == pytest.approx(sum(pairs) / len(pairs))


def test_auc_by_hand_and_by_order_alone():
    assert stats.auc([1, 2], [2, 3]) == 0.875
    assert stats.auc([0], [math.inf]) == 1.0 and stats.auc([-math.inf], [0]) == 1.0


@given(numbers, numbers, st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_true_positives_by_trying_every_threshold(members, non_members, fpr):
    best = 0.0
    for threshold in [*members, *non_members, 99]:
        if np.mean([u < threshold for u in non_members]) <= fpr + 1e-9:
            best = max(best, np.mean([s < threshold for s in members]))
    assert stats.tpr_at_fpr(members, non_members, fpr) == pytest.approx(best)


def test_true_positives_by_hand():
    """Of 100 non-members 0..99 one may be called a member at 1 %, so the threshold is 1; of 99 none, and it is 0."""
    members = [-1, 0, 0.5, 1, 50]
    assert stats.tpr_at_fpr([0, 1, 5], [2, 3], 0) == pytest.approx(2 / 3)
    assert stats.tpr_at_fpr(members, range(100)) == 3 / 5
    assert stats.tpr_at_fpr(members, range(99)) == 1 / 5
    assert stats.tpr_at_fpr(range(29), range(100), 0.29) == 1  # 0.29 * 100 is 28.999999999999996
    for fpr in (-0.1, 1.1, NAN):
        with pytest.raises(InputError, match="between 0 and 1"):
            stats.tpr_at_fpr([1], [1], fpr)


def test_equivalence_is_shown_not_assumed():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=400), rng.normal(size=400)
    assert stats.tost(a, b, 0.3).equivalent and not stats.tost(a, b + 1, 0.3).equivalent
    few = stats.tost(a[:5], b[:5], 0.3)  # no difference seen, and none excluded
    assert not few.equivalent and few.low < few.difference < few.high
    assert scipy.stats.ttest_ind(a[:5], b[:5]).pvalue > 0.05


def test_equivalence_by_hand():
    """(0, 2) and (0, 2): means equal, each variance 2, standard error √2, 2 degrees of freedom.

    The interval at level 0.9 is ±t(0.95, 2) √2 = ±2.92 · 1.414 = ±4.129, so a margin of 4.2 is shown and one of 4.0 is not.
    """
    result = stats.tost([0, 2], [0, 2], 4.2)
    assert result.high == pytest.approx(4.129, abs=1e-3) and result.equivalent
    assert not stats.tost([0, 2], [0, 2], 4.0).equivalent


@given(st.integers(2, 9), st.integers(2, 30), st.floats(0.05, 2), st.sampled_from([0.9, 0.95]))
def test_equivalence_by_two_of_scipys_tests(n, m, margin, level):
    rng = np.random.default_rng(n * m)
    a, b = rng.normal(0.2, size=n), rng.normal(scale=3, size=m)
    result = stats.tost(a, b, margin, level=level)
    above = scipy.stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    below = scipy.stats.ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    around = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(2 * level - 1)
    assert result.p == pytest.approx(max(above, below))
    assert (result.low, result.high) == pytest.approx((around.low, around.high))
    assert result.difference == pytest.approx(a.mean() - b.mean())
    assert result.equivalent == (result.p < 1 - level) == (-margin < result.low and result.high < margin)


def test_equivalence_errs_as_often_as_the_level_says():
    """Means that do differ by the margin are called equal in 5 % of draws."""
    rng = np.random.default_rng(0)
    wrong = [stats.tost(rng.normal(1, size=30), rng.normal(scale=2, size=50), 1.0).equivalent for _ in range(600)]
    assert 0.03 < np.mean(wrong) < 0.07


def test_equivalence_without_variance():
    assert stats.tost([1, 1], [1, 1], 0.1) == stats.Equivalence(0, 0, 0, 0.0, True)
    assert stats.tost([1, 1], [2, 2], 0.1) == stats.Equivalence(-1, -1, -1, 1.0, False)
    tiny = stats.tost([0, 1e-120], [0, 1e-120], 0.1)  # squares of such variances are 0
    assert tiny.equivalent and 0 <= tiny.p < 1e-99 and 0 < tiny.high < 1e-119


def test_equivalence_needs_a_margin_and_two_finite_samples():
    for margin in (0, -1, NAN):
        with pytest.raises(InputError, match="must be above 0"):
            stats.tost([1, 2], [1, 2], margin)
    with pytest.raises(InputError, match="at least two"):
        stats.tost([1], [1, 2], 0.1)
    for pair in (([1, 2], [1, math.inf]), ([1, -math.inf], [1, 2])):
        with pytest.raises(InputError, match="finite"):
            stats.tost(*pair, 0.1)
    with pytest.raises(InputError, match="between 0 and 1, not 95"):
        stats.tost([1, 2], [1, 2], 0.1, level=95)
