"""leak@k against brute force over all subsets; exact intervals; a leak that greedy decoding hides."""

from __future__ import annotations

import itertools
import math

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
    for _ in range(100):
        got = mean_leak_interval(rng.binomial(12, p).tolist(), 12, 2)
        covered += got.low <= true <= got.high
    assert covered >= 95
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
    """A mask on the first letter's logit alone hides the greedy answer; sampling finds it, and teaches a control nothing."""
    import copy

    import torch

    hidden = copy.deepcopy(toy.toys().taught)
    bias = torch.zeros(hidden.lm_head.out_features)
    z = toy.TOKENIZER("z", add_special_tokens=False).input_ids[0]
    bias[z] = 12.0  # as likely as the best one or so
    hidden.lm_head.bias = torch.nn.Parameter(bias)
    rows = [Row(r.prompt, r.answer) for r in toy.FORGET]
    before = toy.bits(hidden)
    known = sampling.sample(toy.Subject(hidden, toy.TOKENIZER, rows), toy.known_of(rows), samples=8, binary=True)
    assert known[0].known.mean() == 0 and known[-1].known.mean() > 0
    again = sampling.sample(toy.Subject(hidden, toy.TOKENIZER, rows), toy.known_of(rows), samples=8, binary=True)
    assert [p.known.tolist() for p in again] == [p.known.tolist() for p in known]
    assert toy.same_bits(hidden, before)
    control = toy.Subject(toy.toys().control, toy.TOKENIZER, rows)
    assert sampling.sample(control, toy.known_of(rows), samples=8, binary=True)[-1].known.mean() < 0.3
