r"""Membership inference: does a model still show that it was trained on a text?

A score per example, higher for texts the model never saw; forget answers are the members, holdout answers the non-members.
An AUC of 1 means the forget set is plainly seen, 1/2 that it looks unseen, 0 that it was over-forgotten, which shows
too.  As in OpenUnlearning (Dorna et al. 2025, arXiv:2506.12618); numpy only.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError
from expunge.stats import Interval, auc, bootstrap, sample, tpr_at_fpr

Array = NDArray[np.float64]
SHARE = 0.4  # of the tokens that Min-K looks at, OpenUnlearning's k


@dataclass(frozen=True)
class Attack:
    """What one score gives an attacker; the true positive rate is at 1 % false positives."""

    auc: float
    auc_interval: Interval
    tpr_at_1_percent: float
    n_members: int
    n_non_members: int


def loss_score(token_logp: Sequence[ArrayLike]) -> Array:
    """(n,) mean negative log-likelihood of each text."""
    return -np.array([t.mean() for t in _texts(token_logp)])


def zlib_score(token_logp: Sequence[ArrayLike], texts: Sequence[str]) -> Array:
    """The same over the bytes that zlib needs for the text: a text that is simple by itself is no sign of training."""
    size = np.array([len(zlib.compress(t.encode("utf-8"))) for t in texts])
    return loss_score(token_logp) / size


def reference_score(token_logp: Sequence[ArrayLike], reference_logp: Sequence[ArrayLike]) -> Array:
    """The same less a reference model's: what the text is to a model that never saw it."""
    return loss_score(token_logp) - loss_score(reference_logp)


def min_k(token_logp: Sequence[ArrayLike], share: float = SHARE) -> Array:
    """Minus the mean of the lowest ``share`` of a text's token log-probabilities, at least one token.

    Hand-worked: (-1, -2, -3, -4, -5) at 0.4 gives (5 + 4) / 2 = 4.5.  Shi et al. 2024, arXiv:2310.16789.
    """
    return -np.array([_lowest(t, share) for t in _texts(token_logp)])


def min_k_plus_plus(
    token_logp: Sequence[ArrayLike], mean: Sequence[ArrayLike], deviation: Sequence[ArrayLike], share: float = SHARE
) -> Array:
    """Min-K of each token's log-probability in deviations from its vocabulary's mean.

    Zhang et al. 2024, arXiv:2404.02936.
    """
    rows = zip(_texts(token_logp), _texts(mean), _texts(deviation), strict=True)
    return -np.array([_lowest((t - m) / np.maximum(s, 1e-12), share) for t, m, s in rows])


def attack(members: ArrayLike, non_members: ArrayLike) -> Attack:
    """How well a score tells ``members`` (forget set) from ``non_members`` (holdout)."""
    seen, unseen = sample(members, "the forget set's scores"), sample(non_members, "the holdout's scores")
    return Attack(auc(seen, unseen), bootstrap(auc, seen, unseen), tpr_at_fpr(seen, unseen), len(seen), len(unseen))


def privleak(auc_unlearned: float, auc_retrained: float) -> float:
    r""":math:`100\,\frac{(1 - A_u) - (1 - A_r)}{1 - A_r}`: 0 looks retrained, below 0 under-, above 0 over-forgotten.

    The retrained model's AUC has to be given; OpenUnlearning takes 1/2 without a word where it is missing, and adds 1e-10 to
    the denominator, which moves the tenth digit.

    Hand-worked: A_u = 1 and A_r = 1/2 give -100.  Shi et al. 2024 (MUSE), arXiv:2407.06460.
    """
    for name, value in (("unlearned", auc_unlearned), ("retrained", auc_retrained)):
        if not 0 <= value <= 1:
            raise InputError(f"the AUC of the {name} model must lie between 0 and 1, not {value}")
    if auc_retrained == 1:
        raise InputError("the retrained model's AUC is 1, so PrivLeak divides by 0: is it really retrained?")
    return 100 * ((1 - auc_unlearned) - (1 - auc_retrained)) / (1 - auc_retrained)


def _lowest(values: Array, share: float) -> float:
    k = max(1, int(len(values) * share))
    return float(np.sort(values)[:k].mean())


def _texts(values: Sequence[ArrayLike]) -> list[Array]:
    return [sample(v, f"text {i}") for i, v in enumerate(values)]
