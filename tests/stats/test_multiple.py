"""Holm's correction against its definition, by brute force over rejections."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.stats import holm


def rejected(p: list[float], alpha: float) -> list[bool]:
    """Holm's procedure as it is written: from the smallest on, until one is not below α over those that are left."""
    out = [False] * len(p)
    for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] > alpha / (len(p) - k):
            break
        out[i] = True
    return out


def test_it_is_the_stepwise_procedure():
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 9):
        for _ in range(50):
            p = (rng.random(m) ** 3).tolist()
            assert (holm(p) <= 0.05).tolist() == rejected(p, 0.05)


def test_worked_and_refused():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).max() == 1
    with pytest.raises(InputError):
        holm([1.2])
