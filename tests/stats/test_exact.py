"""Intervals of a share: by hand, by summing the tails, as scipy has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from expunge import stats
from expunge.errors import InputError

NAN = float("nan")


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
    interval = stats.clopper_pearson(k, n, level=level)
    if k > 0:
        assert sum(binomial(i, n, interval.low) for i in range(k, n + 1)) == pytest.approx(tail)
    if k < n:
        assert sum(binomial(i, n, interval.high) for i in range(k + 1)) == pytest.approx(tail)


def test_clopper_pearson_covers_every_share():
    intervals = [stats.clopper_pearson(k, 15) for k in range(16)]
    for p in np.linspace(0, 1, 101):
        assert sum(binomial(k, 15, p) for k, i in enumerate(intervals) if i.low <= p <= i.high) >= 0.95 - 1e-12


@pytest.mark.parametrize(("k", "n"), [(1, 10), (5, 10), (97, 100)])
def test_wilson_is_scipys_where_the_error_is_a_shares(k, n):
    p = k / n
    interval = stats.wilson(p, (p * (1 - p) / n) ** 0.5)
    known = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((known.low, known.high))
    with pytest.raises(InputError, match="error above 0"):
        stats.wilson(0.5, 0.0)
