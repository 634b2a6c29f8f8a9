"""leak@k against brute force over all subsets; exact intervals; a leak that greedy decoding hides."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny_attacks as toy
from scipy import stats

from expunge.attacks import sampling
from expunge.attacks.sampling import largest_of_k, leak_at_k, leak_interval, mean_leak_interval
from expunge.data.example import Row
from expunge.errors import InputError


def test_leak_at_k_is_the_share_of_subsets_with_a_leak():
    for n in (1, 2, 5, 7):
        for c in range(n + 1):
            answers = [1] * c + [0] * (n - c)
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(answers, k))
                assert leak_at_k(c, n, k) == pytest.approx(np.mean([max(s) for s in subsets]), abs=1e-12)
    assert leak_at_k(3, 200, 128) == pytest.approx(1 - math.comb(197, 128) / math.comb(200, 128))


def test_the_largest_of_k_is_the_mean_over_subsets():
    rng = np.random.default_rng(0)
    for n in (1, 4, 7):
        values = rng.uniform(size=n)
        for k in range(1, n + 1):
            want = np.mean([max(s) for s in itertools.combinations(values, k)])
            assert largest_of_k(values, k) == pytest.approx(want)
        leaks = [1.0] * (n // 2) + [0.0] * (n - n // 2)
        assert largest_of_k(leaks, 1 + n // 2) == pytest.approx(leak_at_k(n // 2, n, 1 + n // 2))


@pytest.mark.parametrize("arguments", [(0, 4, 0), (0, 4, 5), (5, 4, 1), (-1, 4, 1)])
def test_impossible_counts_are_refused(arguments):
    with pytest.raises(InputError, match="leak@k needs"):
        leak_at_k(*arguments)


def test_the_interval_of_leak_at_k():
    low, high = (stats.beta.ppf(q, a, b) for q, a, b in ((0.025, 2, 9), (0.975, 3, 8)))
    got = leak_interval(2, 10, 3)
    assert (got.low, got.high) == pytest.approx((1 - (1 - low) ** 3, 1 - (1 - high) ** 3))


def test_the_interval_of_the_mean_covers_it():
    rng, covered = np.random.default_rng(0), 0
    p = np.array([0.0, 0.05, 0.3, 0.9])
    true = np.mean(1 - (1 - p) ** 2)
    for _ in range(25):
        got = mean_leak_interval(rng.binomial(12, p).tolist(), 12, 2)
        covered += got.low <= true <= got.high
    assert covered >= 24
    with pytest.raises(InputError, match="no row"):
        mean_leak_interval([], 4, 1)


def prompts_of(n):
    return toy.Subject(None, None, [Row(f"Home {i}:", f" place{i} town") for i in range(n)])


def test_points_are_of_one_set_of_samples():
    answers = {0: ["place0 town", "no", "no", "no"], 1: ["no"] * 4}
    greedy = lambda asked: ["town", "no"]  # noqa: E731
    draw = lambda asked, n: [answers[a.index][:n] for a in asked]  # noqa: E731
    points = sampling.points_of(greedy, draw, prompts_of(2), samples=4, binary=True)
    assert [p.strength for p in points] == [0, 1, 2, 4]
    assert [p.known.tolist() for p in points] == [[1, 0], [0.25, 0], [0.5, 0], [1, 0]]
    points = sampling.points_of(greedy, draw, prompts_of(2), samples=4, binary=False)
    assert [p.known.tolist() for p in points] == [[0.5, 0], [0.25, 0], [0.5, 0], [1, 0]]


def test_answers_that_are_never_the_likeliest_leak():
    """A toy that says no three times in five, and the truth else."""
    silent = [replace(r, answer=" no") for r in toy.FORGET]
    model = toy.teach(toy.blank(), silent * 3 + toy.FORGET * 2, 60)
    before = toy.bits(model)
    points = sampling.sample(toy.subject(model), None, samples=8, binary=True)
    assert points[0].known.tolist() == [0] * 4 and points[-1].known.mean() > 0.7
    assert 0.15 < points[1].known.mean() < 0.65
    first, again = (sampling.recalls(sampling.drawn_from(toy.subject(model)), toy.subject(model), 2) for _ in range(2))
    other = sampling.recalls(sampling.drawn_from(toy.subject(model, seed=1)), toy.subject(model), 2)
    assert first.tolist() == again.tolist() != other.tolist()
    subject = toy.subject(model)
    drawn = sampling.drawn_from(subject)
    texts = drawn(sampling.plain(subject), 1)
    assert drawn(sampling.plain(subject), 1) is texts  # drawn once for all attacks on a subject
    assert sampling.drawn_from(replace(subject, seed=1))(sampling.plain(subject), 1) is not texts
    assert toy.same_bits(model, before)
    assert sampling.sample(toy.subject(toy.toys().control), None, samples=2, binary=True)[-1].known.mean() < 0.3
