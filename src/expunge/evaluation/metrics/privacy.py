r"""Membership inference: does a model still show that it was trained on a text?

One score an example, *higher for texts the model never saw*; forget answers are the members, holdout answers the
non-members.  An AUC of 1 means the forget set is fully recognisable, 1/2 that it looks unseen, 0 that it was
over-forgotten, which is recognisable too.

Per-token arrays come one a text, of that text's own length (T,).  A score uses all tokens it gets: OpenUnlearning
(Dorna et al. 2025, arXiv:2506.12618) leaves the last labelled token out of Min-K, Min-K++ and the gradient norm, and in
for the loss, zlib and the reference.  Other differences are documented.  numpy only, without torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError
from expunge.evaluation.metrics.likelihood import EPSILON, ROUNDING
from expunge.stats import Interval, auc, auc_interval, sample, tpr_at_fpr

Array = NDArray[np.float64]
SHARE = 0.4  # of a text's tokens that Min-K averages
FLOOR = 1e-3  # the least deviation that Min-K++ divides by: OpenUnlearning's least variance is 1e-6


@dataclass(frozen=True)
class Attack:
    """The figures of one attack; the true positive rate is at 1 % false positives, the interval at 95 %."""

    auc: float
    tpr_at_1_percent: float
    auc_interval: Interval
    n_members: int
    n_non_members: int


def loss_score(token_logp: Sequence[ArrayLike]) -> Array:
    r"""Mean negative log-likelihood of each text: a model finds the texts likely that it was trained on.

    .. math:: s = -\tfrac1T \sum_t \log \pi(y_t \mid x, y_{<t})

    From n arrays (T,) to (n,).

    Hand-worked: (-1, -2, -3, -4, -5) gives 3.  Yeom et al. 2018, arXiv:1709.01604.
    """
    return -np.array([t.mean() for t in _texts(token_logp)])


def zlib_score(token_logp: Sequence[ArrayLike], texts: Sequence[str]) -> Array:
    r"""The loss score over the zlib-compressed size of the text: a simple text has a low loss without training on it.

    .. math:: s = \mathrm{NLL} \bigm/ |\mathrm{zlib}(\text{text})|

    From n arrays (T,) and n texts to (n,).  As in OpenUnlearning, the mean NLL and the UTF-8 text of the answer alone.

    Hand-worked: a mean NLL of 3 on "aaaaaaaa", which zlib turns into 11 bytes, gives 3/11.

    Carlini et al. 2021, arXiv:2012.07805.
    """
    loss = loss_score(token_logp)
    _match(len(loss), len(texts), "strings")
    result: Array = loss / np.array([len(zlib.compress(t.encode("utf-8"))) for t in texts])
    return result


def reference_score(token_logp: Sequence[ArrayLike], reference_nll: ArrayLike) -> Array:
    r"""The loss score less that of a reference model, to which the text is as hard as it is to someone who never saw it.

    .. math:: s = \mathrm{NLL}_\theta - \mathrm{NLL}_{\mathrm{ref}}

    From n arrays (T,) and the reference's mean NLL (n,) to (n,).

    Hand-worked: a mean NLL of 3 where the reference has 1 gives 2.  Watson et al. 2022, arXiv:2111.08440.
    """
    loss, reference = loss_score(token_logp), sample(reference_nll, "the reference's mean NLL")
    _match(len(loss), len(reference), "reference values")
    return loss - reference


def min_k(token_logp: Sequence[ArrayLike], *, k: float = SHARE) -> Array:
    r"""Min-K %: minus the mean of the lowest share ``k`` of a text's token log-probabilities.

    .. math:: s = -\tfrac{1}{|L|} \sum_{t \in L} \log \pi(y_t \mid x, y_{<t}), \qquad
        L = \text{the } \max(1, \lfloor kT \rfloor) \text{ lowest}

    From n arrays (T,) to (n,).  k = 0.4 is MUSE's and OpenUnlearning's; the paper has 0.2.

    Hand-worked: (-1, -2, -3, -4, -5) at 0.4 gives (5 + 4) / 2 = 4.5.  Shi et al. 2024, arXiv:2310.16789.
    """
    return -np.array([_lowest(t, k) for t in _texts(token_logp)])


def min_k_plus_plus(
    token_logp: Sequence[ArrayLike], mean: Sequence[ArrayLike], deviation: Sequence[ArrayLike], *, k: float = SHARE
) -> Array:
    r"""Min-K++: :func:`min_k` of how far each token lies above what its position's vocabulary has on average.

    .. math:: z_t = \frac{\log \pi(y_t) - \mu_t}{\sigma_t}, \qquad \mu_t = \mathbb{E}_{v\sim\pi} \log \pi(v), \quad
        \sigma_t^2 = \mathrm{Var}_{v\sim\pi} \log \pi(v)

    From three times n arrays (T,) to (n,).  σ is taken as 0.001 at least, as in OpenUnlearning: where a model is sure, logp,
    μ and σ all go to 0 and their quotient is rounding.

    Hand-worked: π = (3/4, 1/4) has μ = -0.5623 and σ = 0.4757; its second token has z = (-1.3863 + 0.5623) / 0.4757 = -√3,
    so a text of it alone scores 1.7321.

    Zhang et al. 2024, arXiv:2404.02936.
    """
    logp, mu, sigma = _texts(token_logp), _arrays(mean, "mean"), _arrays(deviation, "deviation")
    _match(len(logp), len(mu), "means")
    _match(len(logp), len(sigma), "deviations")
    for i, (t, m, s) in enumerate(zip(logp, mu, sigma, strict=True)):
        if not len(t) == len(m) == len(s):
            raise InputError(f"text {i} has {len(t)} tokens, but {len(m)} means and {len(s)} deviations")
        if (s < 0).any():
            raise InputError(f"the deviation of text {i}: entry {int((s < 0).argmax())} is negative")
    return -np.array([_lowest((t - m) / np.maximum(s, FLOOR), k) for t, m, s in zip(logp, mu, sigma, strict=True)])


def grad_norm_score(norms: ArrayLike) -> Array:
    r"""The norm of the loss gradient of each text, given as a number: small for texts that the model has learnt.

    .. math:: s = \tfrac{1}{|P|} \sum_{p \in P} \bigl\lVert \nabla_{p} \mathrm{NLL} \bigr\rVert_2

    (n,) to (n,), checked.  The formula is OpenUnlearning's: the mean over parameter tensors, not the norm of the whole
    gradient; the order of texts, and so the AUC, depends on which it is.

    Hand-worked: two tensors with gradients (3, 4) and (0, 1) give (5 + 1) / 2 = 3.  Wang et al. 2024, arXiv:2402.17012.
    """
    values = sample(norms, "the gradient norms")
    if (values < 0).any():
        raise InputError(f"the gradient norms: entry {int((values < 0).argmax())} is negative")
    return values


def attack(members: ArrayLike, non_members: ArrayLike) -> Attack:
    """How well a score tells ``members`` (forget set) (n,) from ``non_members`` (holdout) (m,).

    The interval is :func:`expunge.stats.auc_interval`'s: a percentile bootstrap of both sets, 1000 resamples, seed 0.

    Hand-worked: members (1, 2), non-members (2, 3) have the AUC 0.875, and below the threshold 2 lies one member of two.
    """
    member_scores, non_member_scores = (
        sample(members, "the forget set's scores"),
        sample(non_members, "the holdout's scores"),
    )
    return Attack(
        auc(member_scores, non_member_scores),
        tpr_at_fpr(member_scores, non_member_scores),
        auc_interval(member_scores, non_member_scores),
        len(member_scores),
        len(non_member_scores),
    )


def privleak(auc_unlearned: float, auc_retrained: float, *, compat: bool = False) -> float:
    r"""PrivLeak: how far the AUC lies from the retrained model's, in per cent; below 0 under-, above 0 over-forgotten.

    .. math:: 100\,\frac{(1 - A_u) - (1 - A_r)}{1 - A_r}

    For AUCs that are 1 where the forget set is plainly seen, as :func:`attack` gives them; MUSE writes (A_u - A_r) / A_r for
    its own, which are 1 minus these.  Both use :func:`min_k` at 0.4.  There is no default for A_r: OpenUnlearning takes 1/2
    with no more than a line in the log where the retrained model's record is missing; pass 0.5 for that.
    ``compat=True`` adds its 1e-10 to the denominator, which moves the tenth digit.

    Hand-worked: A_u = 1 and A_r = 1/2 give -100; A_u = 0.2 and A_r = 0.6 give 100 · (0.8 - 0.4) / 0.4 = 100.

    Shi et al. 2024 (MUSE), arXiv:2407.06460; Dorna et al. 2025, arXiv:2506.12618.
    """
    unlearned, retrained = 1 - _area(auc_unlearned, "unlearned"), 1 - _area(auc_retrained, "retrained")
    if retrained == 0:
        raise InputError("the retrained model's AUC is 1, so PrivLeak divides by 0: is it really retrained?")
    return (unlearned - retrained) / (retrained + (EPSILON if compat else 0)) * 100


def similarity(auc_unlearned: float, auc_retrained: float) -> float:
    r"""The similarity of an AUC to the retrained model's: 1 if equal, 0 at a distance of the retrained AUC or more.

    .. math:: s_A = 1 - \min\Bigl(\frac{|A_u - A_r|}{A_r},\, 1\Bigr)

    Their harmonic mean over the loss, zlib, Min-K and Min-K++ scores is OpenUnlearning's privacy.

    Hand-worked: A_u = 0.5 and A_r = 0.4 give 1 - 0.1 / 0.4 = 0.75.  Dorna et al. 2025, arXiv:2506.12618.
    """
    unlearned, retrained = _area(auc_unlearned, "unlearned"), _area(auc_retrained, "retrained")
    if retrained == 0:
        raise InputError("the retrained model's AUC is 0, so a similarity to it divides by 0: is it really retrained?")
    return 1 - min(abs(unlearned - retrained) / retrained, 1.0)


def _area(value: float, model: str) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"the AUC of the {model} model must lie between 0 and 1, not {value}")
    return float(value)


def _lowest(values: Array, share: float) -> float:
    """Mean of the lowest ``share`` of ``values`` (T,), rounded down, at least one."""
    if not 0 < share <= 1:
        raise InputError(f"Min-K's k is a share of the tokens, above 0 and at most 1, not {share}")
    return float(np.sort(values)[: max(1, int(len(values) * share))].mean())


def _texts(token_logp: Sequence[ArrayLike]) -> list[Array]:
    """Token log-probabilities, one array a text; InputError for a loss in their place."""
    if not len(token_logp):
        raise InputError("there is no text to score: give at least one")
    out = [sample(v, f"text {i}") for i, v in enumerate(token_logp)]
    for i, t in enumerate(out):
        if t.max() > ROUNDING:
            raise InputError(f"text {i}: entry {int(t.argmax())} is {t.max():.6g}, but a log-probability is at most 0")
    return out


def _arrays(values: Sequence[ArrayLike], name: str) -> list[Array]:
    return [sample(v, f"the {name} of text {i}") for i, v in enumerate(values)]


def _match(texts: int, values: int, name: str) -> None:
    if texts != values:
        raise InputError(f"{texts} texts have {values} {name}: give one each")
