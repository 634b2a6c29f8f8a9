"""Each statistic against a number worked by hand, a brute-force loop, or what it promises over many draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from expunge import stats
from expunge.errors import InputError

numbers = st.lists(st.integers(-5, 5), min_size=1, max_size=12)
NAN = float("nan")


def test_harmonic_mean_by_hand():
    assert stats.harmonic_mean([1, 0.5]) == pytest.approx(2 / 3)
    assert stats.harmonic_mean([1, 0, 5]) == 0.0
    assert stats.harmonic_mean([5e-324, 1]) == 0.0
    with pytest.raises(InputError, match="entry 1 is negative"):
        stats.harmonic_mean([1, -1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_harmonic_mean_as_the_standard_library_has_it(values):
    assert stats.harmonic_mean(values) == pytest.approx(statistics.harmonic_mean(values))


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
    for shift, told in ((12, False), (13, True)):
        statistic, p = stats.ks_two_sample(at + 0.5, at + shift)
        assert statistic == pytest.approx(shift / 40) and (p < 0.05) == told


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
        found = stats.bootstrap(stats.auc, members, non_members, resamples=100, seed=seed, level=0.9)
        hits.append(found.low <= 0.7602 <= found.high)
    assert 0.8 < np.mean(hits) < 0.97


def test_a_bootstrap_by_hand():
    """Means of (0, 1) resampled are 0, ½, 1 with chances ¼, ½, ¼, as in the docstring."""
    for f in (stats.bootstrap_mean, lambda v, **k: stats.bootstrap(np.mean, v, **k)):
        assert f([0, 1], level=0.4) == stats.Interval(0.5, 0.5)
        assert f([0, 1], level=0.6) == stats.Interval(0, 1)
        assert f([3] * 5) == stats.Interval(3, 3)


@pytest.mark.parametrize("block", [1, 1000, 10**9])
def test_both_bootstraps_give_the_same_numbers_and_repeat_by_seed(block, monkeypatch):
    monkeypatch.setattr(stats, "BLOCK", block)
    values = np.random.default_rng(0).normal(size=77)
    fast = stats.bootstrap_mean(values)
    slow = stats.bootstrap(lambda v: float(np.mean(v)), values)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), rel=1e-12)
    assert fast == stats.bootstrap_mean(values) != stats.bootstrap_mean(values, seed=1)
    assert slow != stats.bootstrap(lambda v: float(np.mean(v)), values, seed=1)


def test_a_bootstrap_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).normal(size=200)
    found = stats.bootstrap_mean(values, resamples=4000)
    error = values.std() / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)


def test_samples_are_resampled_on_their_own():
    """The variance of a difference of two means is the sum of theirs, even where the samples are the same numbers."""
    a = np.random.default_rng(0).normal(size=100)
    found = stats.bootstrap(lambda x, y: float(np.mean(x) - np.mean(y)), a, a - 1, resamples=3000)
    half = 1.96 * a.std() * math.sqrt(2 / 100)
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half), abs=0.03)


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


def test_clopper_pearson_by_hand():
    """0 of 10: no lower bound, and the upper is where 10 misses in a row have probability 2.5 %."""
    none = stats.clopper_pearson(0, 10)
    assert none.low == 0 and none.high == pytest.approx(1 - 0.025**0.1)
    every = stats.clopper_pearson(10, 10)
    assert every.low == pytest.approx(0.025**0.1) and every.high == 1
    for successes, n in ((3, 2), (-1, 2), (0, 0), (0.5, 2), (1, 2.5), (NAN, 2), (1, NAN)):
        with pytest.raises(InputError, match="is no share"):
            stats.clopper_pearson(successes, n)
    with pytest.raises(InputError, match="between 0 and 1, not 95"):
        stats.clopper_pearson(1, 2, level=95)


def binomial(k, n, p):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@given(st.integers(1, 30), st.data(), st.sampled_from([0.8, 0.95]))
def test_clopper_pearson_by_summing_the_tails(n, data, level):
    """At each bound the tail beyond what was seen has probability (1 - level) / 2."""
    k, tail = data.draw(st.integers(0, n)), (1 - level) / 2
    found = stats.clopper_pearson(k, n, level=level)
    if k > 0:
        assert sum(binomial(i, n, found.low) for i in range(k, n + 1)) == pytest.approx(tail)
    if k < n:
        assert sum(binomial(i, n, found.high) for i in range(k + 1)) == pytest.approx(tail)


def test_clopper_pearson_covers_every_share():
    intervals = [stats.clopper_pearson(k, 15) for k in range(16)]
    for p in np.linspace(0, 1, 101):
        assert sum(binomial(k, 15, p) for k, i in enumerate(intervals) if i.low <= p <= i.high) >= 0.95 - 1e-12


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
    found = stats.tost([0, 2], [0, 2], 4.2)
    assert found.high == pytest.approx(4.129, abs=1e-3) and found.equivalent
    assert not stats.tost([0, 2], [0, 2], 4.0).equivalent


@given(st.integers(2, 9), st.integers(2, 30), st.floats(0.05, 2), st.sampled_from([0.9, 0.95]))
def test_equivalence_by_two_of_scipys_tests(n, m, margin, level):
    rng = np.random.default_rng(n * m)
    a, b = rng.normal(0.2, size=n), rng.normal(scale=3, size=m)
    found = stats.tost(a, b, margin, level=level)
    above = scipy.stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    below = scipy.stats.ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    around = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(2 * level - 1)
    assert found.p == pytest.approx(max(above, below))
    assert (found.low, found.high) == pytest.approx((around.low, around.high))
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.equivalent == (found.p < 1 - level) == (-margin < found.low and found.high < margin)


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


TWO = {
    "ks_two_sample": stats.ks_two_sample,
    "auc": stats.auc,
    "tpr_at_fpr": stats.tpr_at_fpr,
    "bootstrap": lambda a, b: stats.bootstrap(lambda x, y: 0.0, a, b),
    "paired_bootstrap": lambda a, b: stats.paired_bootstrap(lambda x, y: 0.0, a, b),
    "tost": lambda a, b: stats.tost(a, b, 0.1),
}
BAD = [
    ([], "empty"),
    ([1.0, NAN], "entry 1 is NaN"),
    ([[1.0, 2.0]], r"the shape is \(1, 2\)"),
    (["a"], "not one list of numbers"),
]


@pytest.mark.parametrize(("bad", "why"), BAD)
@pytest.mark.parametrize("name", [*TWO, "harmonic_mean", "bootstrap_mean"])
def test_what_is_no_sample_is_told(name, bad, why):
    good = [1.0, 2.0]
    calls = [(bad, good), (good, bad)] if name in TWO else [(bad,)]
    for call in calls:
        with pytest.raises(InputError, match=why):
            TWO.get(name, getattr(stats, name))(*call)


def test_results_are_values():
    for value in (stats.Interval(0, 1), stats.tost([1, 2], [1, 2], 1)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.low = 3


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
    monkeypatch.setattr(stats, "BLOCK", 100)  # two resamples at a time
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


# -- intervals of shares --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 10, 400])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_at_an_end_has_the_exact_interval(n, value):
    found = stats.bounded_mean([value] * n)
    exact = scipy.stats.binomtest(int(value * n), n).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert 0 <= found.low < found.high <= 1


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
    """Over 2000 samples of 8 from a share of 0.3, of which some have no hit, the interval holds it as often as said."""
    rng = np.random.default_rng(0)
    kept = [stats.bounded_mean(rng.random(8) < 0.3) for _ in range(2000)]
    assert np.mean([i.low <= 0.3 <= i.high for i in kept]) >= 0.95


def test_an_auc_of_an_end_has_a_width():
    found = stats.auc_interval([0, 0.1, 0.2], [1, 2, 3, 4])
    assert (found.low, found.high) == pytest.approx((0.025 ** (1 / 3), 1))
    found = stats.auc_interval([1.0] * 5, [1.0] * 9)  # all ties
    assert 0 < found.low < 0.5 < found.high < 1
    a, b = [0.1, 0.5, 0.9, 0.3], [0.4, 0.8, 1.0]
    assert stats.auc_interval(a, b) == stats.bootstrap(stats.auc, a, b)


def test_a_statistic_of_means():
    def mean(*means):
        return float(np.mean(means))

    rng = np.random.default_rng(1)
    a, b = rng.random(20), rng.random(30)
    same = stats.bootstrap(lambda *s: float(np.mean([np.mean(v) for v in s])), a, b)
    assert stats.bootstrap_of_means(mean, a, b) == same
    found = stats.bootstrap_of_means(stats_harmonic, [0.0] * 10, [1.0] * 10)
    assert found.low == 0 and found.high == pytest.approx(2 / (1 / (1 - 0.025**0.1) + 1))


def stats_harmonic(*means):
    return stats.harmonic_mean(means)


@pytest.mark.parametrize(("k", "n"), [(1, 10), (5, 10), (97, 100)])
def test_wilson_is_scipys_where_the_error_is_a_shares(k, n):
    p = k / n
    found = stats.wilson(p, (p * (1 - p) / n) ** 0.5)
    known = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    with pytest.raises(InputError, match="error above 0"):
        stats.wilson(0.5, 0.0)
