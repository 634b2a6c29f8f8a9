"""Halves of a benchmark's rows: together all of them, none twice, neighbours in one block."""

from __future__ import annotations

import pytest

from expunge.benchmarks import tofu
from expunge.data.example import Row
from expunge.evaluation.halves import half, in_half
from expunge.evaluation.probe import Probe


def probes(**parts):
    return [Probe(part, i, Row("?", "a")) for part, n in parts.items() for i in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 20, 21, 39, 117, 400])
def test_two_halves_are_the_whole_and_about_equal(n):
    every = probes(forget=n, holdout=400)
    first, second = in_half(every, "first"), in_half(every, "second")
    assert sorted((p.part, p.index) for p in first + second) == sorted((p.part, p.index) for p in every)
    sizes = [sum(p.part == "forget" for p in some) for some in (first, second)]
    assert 0 <= sizes[0] - sizes[1] <= max(1, -(-n // 20)) and (sizes[1] or n == 1)


def test_authors_of_tofu_stay_whole():
    first = {p.index for p in in_half(probes(forget=400), "first")}
    assert first == {i for i in range(400) if i // 20 % 2 == 0}


def test_a_half_of_a_benchmark_forgets_and_keeps_as_the_whole():
    whole = tofu.ALL[0]
    second = half(whole, "second")
    assert second.name == "tofu/forget01/second-half" and (second.forget, second.score) == (whole.forget, whole.score)
