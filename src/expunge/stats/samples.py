"""A sample: numbers that are checked once; intervals; the means of samples that all statistics share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError

Array = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def sample(values: ArrayLike, name: str = "the sample") -> Array:
    """``values`` (n,) as numbers; InputError, with ``name`` in it, where there are none or one is NaN."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: not one list of numbers") from None
    if array.ndim != 1:
        raise InputError(f"{name}: not one list of numbers, the shape is {array.shape}")
    if not len(array):
        raise InputError(f"{name}: empty, give at least one number")
    if np.isnan(array).any():
        raise InputError(f"{name}: entry {int(np.isnan(array).argmax())} is NaN")
    return array


def harmonic_mean(values: ArrayLike) -> float:
    r"""Harmonic mean of non-negative numbers; 0 as soon as one of them is 0.

    .. math:: n \Bigm/ \sum_i 1 / v_i

    From (n,); InputError where a value is negative.

    Hand-worked: (1, 1/2) gives 2 / (1 + 2) = 2/3.
    """
    array = sample(values, "the harmonic mean's values")
    if (array < 0).any():
        raise InputError(f"the harmonic mean's values: entry {int((array < 0).argmax())} is negative")
    if (array == 0).any():
        return 0.0
    with np.errstate(over="ignore", divide="ignore"):  # 1 / v of the smallest numbers is inf, and the mean 0
        return float(len(array) / (1 / array).sum())


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Entry by entry a / b, and 0 where b is 0: precision, recall and F1 where there is nothing to find.

    From any shape to the same.  Hand-worked: (1, 0) / (2, 0) is (1/2, 0).
    """
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def check_level(level: float, resamples: int = 1) -> None:
    if not 0 < level < 1:
        raise InputError(f"a confidence level must lie between 0 and 1, not {level}")
    if resamples < 1:
        raise InputError(f"a bootstrap needs at least one resample, not {resamples}")
