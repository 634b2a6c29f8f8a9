"""Several tests at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from expunge.errors import InputError
from expunge.stats.samples import Array, sample


def holm(p_values: ArrayLike) -> Array:
    r"""Holm's p-values of a family of tests: below α only where the chance of any false claim in the family is below α.

    .. math:: \tilde p_{(i)} = \min\bigl\{1,\; \max_{j \le i}\, (m - j + 1)\, p_{(j)}\bigr\}

    From (m,) to (m,), in their order.

    Hand-worked: (0.01, 0.04, 0.03) gives (0.03, 0.06, 0.06): 3 · 0.01, 2 · 0.03, and 1 · 0.04 raised to that.

    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.06, 0.06]

    Holm 1979, jstor:4615733.
    """
    p = sample(p_values, "the p-values")
    if (p < 0).any() or (p > 1).any():
        raise InputError("a p-value lies between 0 and 1")
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty(len(p))
    out[order] = np.minimum(raised, 1)
    return out
