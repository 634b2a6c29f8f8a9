r"""How different the responses to one instruction are, and how that meets their relevance.  numpy only.

Embeddings are (n, d), a row a response; an empty table, a number that is not finite and a row without a direction (all
zeros, or equal to ``mean``) are an :class:`~expunge.errors.InputError` that names the row.

``mean`` (d,) is the mean embedding of *other* texts (neutral ones, say), taken off before rows get unit length: sentence
encoders give all texts a common part, which hides their differences.  It is never the rows' own mean, which would make
two responses opposite whatever they say, and near-copies as different as can be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError

Array = NDArray[np.float64]
TINY = 1e-12  # an eigenvalue (they sum to 1) or a length under this is round-off


def unit(embeddings: ArrayLike, *, mean: ArrayLike | None = None) -> Array:
    """The embeddings (n, d), less ``mean``, each of length 1.

    Hand-worked: (3, 4) becomes (0.6, 0.8), and with the mean (3, 3) it becomes (0, 1).
    """
    rows = _table(embeddings, "the embeddings")
    if mean is not None:
        shift = _table(np.asarray(mean)[None], "the mean embedding")
        if shift.shape[1] != rows.shape[1]:
            raise InputError(f"the mean embedding has {shift.shape[1]} numbers, the embeddings have {rows.shape[1]}")
        rows = rows - shift
    lengths = np.linalg.norm(rows, axis=1)  # (n,)
    if (lengths <= TINY).any():
        row = int((lengths <= TINY).argmax())
        raise InputError(f"the embeddings: row {row} has no direction (all zeros, or the mean); leave that text out")
    result: Array = rows / lengths[:, None]
    return result


def vendi_score(embeddings: ArrayLike, *, mean: ArrayLike | None = None) -> float:
    r"""Vendi score: the effective number of different responses, from 1 (all the same) to n (all at right angles).

    .. math:: \exp\Bigl(-\sum_i \lambda_i \log \lambda_i\Bigr), \qquad \lambda = \text{eigenvalues of } E E^\top / n

    E is :func:`unit` of the embeddings.  The eigenvalues come from the smaller of E Eᵀ (n, n) and Eᵀ E (d, d), which share
    those that are not 0; round-off ones are dropped.

    Hand-worked: two the same and one at a right angle have λ = (2/3, 1/3) and the score 3 / 2^(2/3) = 1.8899.

    >>> round(vendi_score([[1, 0], [2, 0], [0, 5]]), 4)
    1.8899

    Friedman and Dieng 2023, arXiv:2210.02410.
    """
    rows = unit(embeddings, mean=mean)
    n, d = rows.shape
    values = np.linalg.eigvalsh((rows @ rows.T if n <= d else rows.T @ rows) / n)
    values = values[values > TINY]
    return float(np.exp(-(values * np.log(values)).sum()))


def diversity(embeddings: ArrayLike, *, mean: ArrayLike | None = None) -> float:
    r"""The Vendi score VS on a scale of 0 (all the same) to 1 (all at right angles).

    .. math:: (\mathrm{VS} - 1) / (n - 1)

    One response has diversity 0.  Fewer dimensions than responses bound it by (d - 1) / (n - 1).

    Hand-worked: the three of :func:`vendi_score` have (1.8899 - 1) / 2 = 0.4449.
    """
    n = len(_table(embeddings, "the embeddings"))
    score = vendi_score(embeddings, mean=mean)  # raises for rows without a direction, also for n = 1
    return float(np.clip((score - 1) / (n - 1), 0, 1)) if n > 1 else 0.0


def added_diversity(embeddings: ArrayLike, collected: ArrayLike, *, mean: ArrayLike | None = None) -> float:
    r"""The :func:`diversity` of new responses (n, d), where all that was ``collected`` (m, d) before counts as one response.

    .. math:: e'_j = \bigl(\sqrt{1 - s_j}\; e_j,\; \sqrt{s_j}\bigr), \qquad s_j = \max(0, \max_i \langle e_j, c_i\rangle)

    One further coordinate represents "known": a response that was collected is that coordinate alone, one at a right angle
    to everything collected stays as it is.  Rows keep length 1, so the result is on the same scale, 0 to 1; it is 0 where
    every response is a copy of one collected, and :func:`diversity` where nothing is collected (m = 0).  The nearest of
    all m is looked for, which costs n·m·d; the eigenvalues are of n rows.  Since "known" is one response, the first copy in
    a batch costs nothing: it tells among 16 or more responses, not between two.

    The Vendi score of new and collected responses together is not used: it weighs them by their number.  Sixteen new
    responses at right angles, added to 500 copies of one, raise it from 1 to 1.25, that is by 0.016 a new response; here
    they have diversity 1.  Beside 64 at right angles, 120 responses of four further kinds even lower it.

    Hand-worked: of four responses at right angles two are collected: the rows are e₁, e₂, k, k, λ = (1/4, 1/4, 1/2), the
    score is 2^1.5 = 2.8284, and the diversity 1.8284 / 3 = 0.6095.

    >>> round(added_diversity(np.eye(4), np.eye(4)[2:]), 4)
    0.6095
    """
    rows = unit(embeddings, mean=mean)
    if not np.size(collected):
        return diversity(rows)
    known = unit(collected, mean=mean)
    if known.shape[1] != rows.shape[1]:
        raise InputError(f"the collected embeddings have {known.shape[1]} numbers, the new ones {rows.shape[1]}")
    nearest = (rows @ known.T).max(axis=1).clip(0, 1)[:, None]  # (n, 1)
    return diversity(np.hstack([np.sqrt(1 - nearest) * rows, np.sqrt(nearest)]))


def harmonic(relevance: float, diversity: float, weight: float = 0.5) -> float:
    r"""Weighted harmonic mean of relevance R and diversity D; 0 as soon as one of them is 0.

    .. math:: 1 \Bigm/ \Bigl(\frac{w}{R} + \frac{1 - w}{D}\Bigr)

    ``weight`` w is relevance's; the paper's is not published.  InputError for a number outside [0, 1].

    Hand-worked: R = 1, D = 1/2 give 1 / (1/2 + 1) = 2/3, and with w = 3/4 1 / (3/4 + 1/2) = 0.8.

    >>> harmonic(1.0, 0.5, weight=0.75)
    0.8
    """
    for name, value in (("relevance", relevance), ("diversity", diversity), ("weight", weight)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} must lie between 0 and 1, not {value}")
    if relevance == 0 or diversity == 0:
        return 0.0
    return 1 / (weight / relevance + (1 - weight) / diversity)


def _table(values: ArrayLike, name: str) -> Array:
    """``values`` as finite numbers (n, d) with n, d ≥ 1."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: not a table of numbers") from None
    if array.ndim != 2 or not array.size:
        raise InputError(f"{name}: give at least one row of numbers, not the shape {array.shape}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InputError(f"{name}: row {int((~finite).argmax())} is not finite; leave that text out")
    return array
