"""Remaining share and recovery by numbers worked by hand; choice on the other half; steps to half recovery."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.stats import cross_chosen, excess_recovery, recovery, remaining_share, steps_to


def of(mean: float) -> list[float]:
    return [mean - 0.05, mean + 0.05] * 10


def test_hand_worked():
    assert remaining_share(of(0.3), of(0.9), of(0.1)).value == pytest.approx(0.25)
    assert recovery(of(0.5), of(0.1), of(0.9)).value == pytest.approx(0.5)
    assert excess_recovery(of(0.5), of(0.1), of(0.9), of(0.3), of(0.1)).value == pytest.approx(0.25)


def test_a_denominator_is_at_least_a_tenth():
    assert remaining_share(of(0.3), of(0.2), of(0.2)).value == pytest.approx(1.0)
    assert recovery(of(0.3), of(0.2), of(0.1)).value == pytest.approx(1.0)


def test_an_attack_that_gains_as_much_on_the_control_recovers_nothing():
    rng = np.random.default_rng(0)
    before, gain = rng.uniform(0, 0.1, 30), rng.uniform(0.1, 0.4, 30)
    found = excess_recovery(before + gain, before, np.full(30, 0.9), before + gain, before)
    assert found.value == pytest.approx(0) and found.interval().high == pytest.approx(0, abs=1e-9)


def test_a_strength_is_chosen_on_other_rows_than_those_reported():
    noise = np.random.default_rng(1).random((50, 12))
    assert noise.mean(axis=1).max() > 0.6  # what is chosen and reported on the same rows
    assert abs(cross_chosen(noise).mean() - 0.5) < 0.15
    sure = np.stack([np.zeros(6), np.ones(6)])
    assert cross_chosen(sure).tolist() == [1.0] * 6
    assert cross_chosen([[0.3], [0.9]]).tolist() == [0.3]  # a single row has no other half
    with pytest.raises(InputError):
        cross_chosen([])


def test_steps_to_half():
    assert steps_to([20, 0, 10], [0.75, 0.0, 0.25]) == pytest.approx(15)
    assert steps_to([1, 2], [0.6, 0.1]) == 1 and steps_to([0, 4], [0, 0.4]) is None
