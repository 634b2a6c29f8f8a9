r"""Three scores of an unlearned model and one number of them, each from 0 to 1, higher is better.

*Memorisation*: how little of the forget set is left; *privacy*: how near attacks on it come to what they see of a model
that never saw it; *utility*: what was kept, and whether the answers are still language; the *score* is their harmonic mean,
which is near 0 as soon as one of the three is.  After Dorna et al. 2025, arXiv:2506.12618, with the differences that each
function names.  A score is of the figures that there are: its parts are given by name, and one that was not measured is
left out by the caller, who says so (:mod:`expunge.evaluation.scores` does, in the figure's note).

Every value is a number or an array (resamples,) of one length; so is what is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError

Array = NDArray[np.float64]
MEMORISATION = ("exact_memorisation", "extraction_strength", "paraphrased_probability", "truth_ratio_true_better")
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
UTILITY = ("probability_kept", "rouge_kept", "fluency")
SCORES = ("memorisation", "privacy", "utility")


def memorisation(known: Mapping[str, ArrayLike]) -> Array:
    r"""How little of the forget set the model still knows.

    .. math:: \mathrm{HM}\bigl(1 - \mathrm{EM},\; 1 - \mathrm{ES},\; 1 - p_{\text{paraphrase}},\; 1 - \mathrm{TR}\bigr)

    ``known``: any of ``MEMORISATION``, means over the forget rows: exact memorisation, extraction strength, the
    :func:`~expunge.evaluation.metrics.likelihood.probability` of the paraphrased answers, and the truth ratio as
    :func:`~expunge.evaluation.metrics.likelihood.true_better`, which Dorna et al. take as
    :func:`~expunge.evaluation.metrics.likelihood.prob_mean`.  A model that never saw the rows has no 1 here: it gets words
    right that anybody would say.

    Hand-worked: EM = 1/2, ES = 0, p = 0 and TR = 0 give 4 / (2 + 1 + 1 + 1) = 0.8.

    >>> float(memorisation(dict(zip(MEMORISATION, (0.5, 0, 0, 0)))))
    0.8
    """
    return _mean(known, MEMORISATION, "memorisation", forgotten=True)


def closeness(auc: ArrayLike, auc_retrained: ArrayLike) -> Array:
    r"""How near an attack's AUC comes to the retrained model's: 1 if equal, 0 at the AUC that is farthest from it.

    .. math:: 1 - \min\Bigl(\frac{|A - A_r|}{\max(A_r,\, 1 - A_r)},\, 1\Bigr)

    Dorna et al. divide by A_r alone (:func:`~expunge.evaluation.metrics.privacy.similarity`), so the same distance weighs
    more or less by which of the two sets the AUC counts first.

    Hand-worked: A = 0.9 and A_r = 0.4 give 1 - 0.5 / 0.6 = 1/6.

    >>> round(float(closeness(0.9, 0.4)), 4)
    0.1667
    """
    unlearned, retrained = _share(auc, "the AUC"), _share(auc_retrained, "the retrained model's AUC")
    distance = np.abs(unlearned - retrained) / np.maximum(retrained, 1 - retrained)
    return np.asarray(1 - np.minimum(distance, 1), dtype=np.float64)


def privacy(auc: Mapping[str, ArrayLike], auc_retrained: Mapping[str, ArrayLike]) -> Array:
    r"""How near membership attacks come to what they see of a model that never saw the forget set.

    .. math:: \mathrm{HM}(c_{\text{loss}},\, c_{\text{zlib}},\, c_{\text{Min-K}},\, c_{\text{Min-K++}})

    c is :func:`closeness`.  ``auc``, ``auc_retrained``: any of ``ATTACKS``, the same in both.  Forgetting too much lowers
    it as remembering does.

    Hand-worked: two attacks at the retrained model's AUC of 1/2 and two at 1 give HM(1, 1, 0, 0) = 0; at 3/4 instead of 1
    they have c = 1/2, and 4 / (1 + 1 + 2 + 2) = 2/3.

    >>> half = dict.fromkeys(ATTACKS, 0.5)
    >>> round(float(privacy(half | {"min_k": 0.75, "zlib": 0.75}, half)), 4)
    0.6667
    """
    if set(auc) != set(auc_retrained):
        raise InputError(f"privacy compares the same attacks, not {', '.join(auc)} with {', '.join(auc_retrained)}")
    return _mean({name: closeness(auc[name], auc_retrained[name]) for name in auc}, ATTACKS, "privacy")


def utility(kept: Mapping[str, ArrayLike]) -> Array:
    r"""What was kept, and whether the model still answers in sentences.

    .. math:: \mathrm{HM}\Bigl(\min\bigl(1, \tfrac{p}{p_0}\bigr),\; \min\bigl(1, \tfrac{R}{R_0}\bigr),\; F\Bigr)

    ``kept``: any of ``UTILITY``: mean probability and mean ROUGE-L recall of the retain rows over those of the target, the
    model before unlearning (:func:`kept_share`), and the fluency F of the answers to forget questions
    (:func:`~expunge.evaluation.metrics.fluency.fluency`).  Dorna et al. have TOFU's model utility for the first two.

    Hand-worked: 1, 1 and 1/2 give 3 / (1 + 1 + 2) = 3/4.

    >>> float(utility(dict(zip(UTILITY, (1, 1, 0.5)))))
    0.75
    """
    return _mean(kept, UTILITY, "utility")


def kept_share(after: ArrayLike, before: ArrayLike) -> Array:
    """``after`` / ``before``, both in [0, 1], at most 1; 1 where nothing was there to lose.

    Hand-worked: 0.3 of 0.6 is 1/2, 0.7 of 0.6 is 1.
    """
    now, then = _share(after, "the mean after"), _share(before, "the mean before")
    now, then = np.broadcast_arrays(now, then)
    return np.asarray(np.minimum(1, np.divide(now, then, out=np.ones(now.shape), where=then > 0)), dtype=np.float64)


def score(scores: Mapping[str, ArrayLike]) -> Array:
    """The harmonic mean of ``SCORES``, all of them: without one of the three it is not defined.

    Hand-worked: (1, 1, 1/2) gives 3/4, and any 0 gives 0.
    """
    if missing := [name for name in SCORES if name not in scores]:
        raise InputError(f"the score is of memorisation, privacy and utility, and {' and '.join(missing)} is missing")
    return _mean(scores, SCORES, "the score")


def harmonic(shares: Sequence[ArrayLike]) -> Array:
    """The harmonic mean of several shares, entry by entry; 0 where one of them is 0.

    Hand-worked: (1, 1/2) and (1/2, 0) give (2 / 3, 0).
    """
    stacked = np.stack(np.broadcast_arrays(*(np.asarray(s, dtype=np.float64) for s in shares)))  # (k, …)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(len(stacked) / (1 / stacked).sum(axis=0), dtype=np.float64)  # 1 / 0 is inf, and the mean 0


def _mean(values: Mapping[str, ArrayLike], names: Sequence[str], what: str, *, forgotten: bool = False) -> Array:
    """The harmonic mean of ``values``, or of 1 less each; InputError for a name that is not of ``names`` or no share."""
    if unknown := [name for name in values if name not in names]:
        raise InputError(f"{what} knows no {', '.join(unknown)}; it is made of {', '.join(names)}")
    if not values:
        raise InputError(f"{what} has nothing to be made of: give any of {', '.join(names)}")
    shares = [_share(values[name], name) for name in names if name in values]
    return harmonic([1 - s if forgotten else s for s in shares])


def _share(value: ArrayLike, name: str) -> Array:
    array = np.asarray(value, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        wrong = array[~((array >= 0) & (array <= 1))].flat[0]
        raise InputError(f"{name} must lie between 0 and 1, not {wrong}")
    return array
