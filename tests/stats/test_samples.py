"""What is no sample is refused everywhere; harmonic means and ratios by hand."""

from __future__ import annotations

import dataclasses
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge import stats
from expunge.errors import InputError

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
