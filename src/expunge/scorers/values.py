"""The type of a scorer, and the check of its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.errors import InputError

Scorer = Callable[[Sequence[str]], NDArray[np.float64]]
"""n texts -> (n,) values in [0, 1]."""


def checked(scorer: Scorer, name: str) -> Scorer:
    """``scorer`` with checked values: (n,) numbers in [0, 1], or an InputError that names the scorer.

    For no texts the result is (0,), and ``scorer`` is not called.

    >>> checked(lambda texts: np.array([0.25] * len(texts)), "quarter")(["a", "b"]).tolist()
    [0.25, 0.25]
    """

    def values(texts: Sequence[str]) -> NDArray[np.float64]:
        if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
            raise InputError(f"the scorer {name} takes a list of texts")
        if len(texts) == 0:
            return np.zeros(0)
        try:
            out = np.asarray(scorer(texts), dtype=np.float64)
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the scorer {name} gave something that is no number for each text") from error
        if out.shape != (len(texts),):
            raise InputError(f"the scorer {name} gave values of shape {out.shape} for {len(texts)} texts")
        outside = ~((out >= 0) & (out <= 1))  # NaN is outside too
        if outside.any():
            i = int(outside.argmax())
            raise InputError(f"the scorer {name} gave {out[i]:g} for text {i}; a value must lie between 0 and 1")
        return out

    return values
