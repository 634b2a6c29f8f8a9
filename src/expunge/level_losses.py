r"""Forget losses with an end: 0 where the model is to a row what one that never saw it is, *the level*.

Notation as in :mod:`expunge.losses`; :math:`p_{i,t}` and :math:`q_{i,t}` are the probabilities of the answer's token
:math:`y_{i,t}` under the model and under π_level, the model that the reference view is of.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from expunge.forward.view import ForwardPass
from expunge.losses import not_monotone

EPSILON = 0.01  # of a distance to the level: where its gradient begins to fade
DELTA = 1e-4  # of a probability: what the complement of a token known by heart counts as, at least
OTHERS = 1e-6  # of a probability: what all tokens together that are not among the likeliest have, at least
OF_LABEL = 0.3  # of a token's distance in logits, beside the divergence of whole predictions
LEAST_FORCE, CONFIDENCE = 0.1, 0.3  # of a token's and of an entropy's distance, where the level has no predictions


@not_monotone
def above_level(x: ForwardPass, *, loss: Callable[[ForwardPass], Tensor]) -> Tensor:
    r"""``loss`` of the tokens that are still likelier than under a model that never saw the row.

    .. math:: L\bigl(\{(i,t) : \log p_{i,t} > \log \pi_{\mathrm{level}}(y_{i,t}\mid x_i, y_{i,<t})\}\bigr)

    π_level is the model that the reference view is of.  At and below its level a token counts as nothing, so each token has
    an end, from one side.  A mean divides by all tokens.  Where ``loss`` compares with a reference, that is π_level.

    Hand-worked: two tokens with probability 1/2 and 1/8, the level 1/4 for both, :func:`wga`: -½ ln 2 / 2 = -0.1733.

    A gate of this library.
    """
    return loss(x.only(x.token_logp > x.reference.token_logp))


@not_monotone
def level_divergence(x: ForwardPass) -> Tensor:
    r"""How far each token is, in probability and in logits, from what it is to a model that never saw the row.

    .. math:: \tfrac{1}{\sum_i|y_i|}\sum_{i,t} (p_{i,t} - q_{i,t})\,
        \bigl(\operatorname{logit} p_{i,t} - \operatorname{logit} q_{i,t}\bigr), \qquad
        q_{i,t} = \pi_{\mathrm{level}}(y_{i,t}\mid x_i, y_{i,<t})

    with logit p = log p - log(1 - p + δ), δ = 1e-4.  It is the Jeffreys divergence of two coins: a token comes, or another
    does.  Two-sided, and 0 at the level only; δ aside, the gradient in logit p is
    :math:`p - q + p(1-p)(\operatorname{logit} p - \operatorname{logit} q)`.

    Hand-worked: one token, p = 1/2 and q = 1/4: ¼ · ln 3 = 0.2747, gradient ¼ + ¼ ln 3 = 0.5247.

    A loss of this library; the divergence is of Jeffreys 1946.
    """
    return x.token_mean(_jeffreys(x.token_logp, x.reference.token_logp))


@not_monotone
def level_distance(x: ForwardPass) -> Tensor:
    r"""How far each row's predictions are from those of a model that never saw it.

    .. math:: \mathbb{E}_i \sqrt{\tfrac{1}{|y_i|}\sum_t d_{i,t} + \epsilon^2} - \epsilon, \qquad
        d = \mathrm{KL}(\pi_{\mathrm{level}} \| \pi_\theta) + c\,h(\Delta), \quad
        \Delta = \operatorname{logit} p - \operatorname{logit} q

    with c = 0.3, ε = 0.01, Huber's h(Δ) = ½ Δ² up to 1 and linear beyond, and logit as in :func:`level_divergence`.  The
    divergence is over the level's 32 likeliest tokens and all others as one: the model is to say what one that never saw the
    row would say, as surely.  h pulls the answer's token, which counts for little in it once it is unlikely, the rest of the
    way.  The root pulls a row as hard next to its level as far from it (an exact penalty).

    Where the level has no predictions, only levels of tokens and of their entropies H,

    .. math:: d = (p - q)\,\Delta + c\,h(\Delta) + k\,h(H - H^{\mathrm{level}}), \qquad c = 0.1,\ k = 0.3.

    Hand-worked: one token of two, p = 1/2 and q = 1/4, so Δ = ln 3.  With KL = ¼ ln ½ + ¾ ln 3/2 = 0.1308:
    √(0.1308 + 0.3 (ln 3 - ½) + 10⁻⁴) - 0.01 = 0.5472.  With entropies, H = ln 2 and its level 0.5623:
    √(¼ ln 3 + 0.1 (ln 3 - ½) + 0.15 (ln 2 - 0.5623)² + 10⁻⁴) - 0.01 = 0.5707.

    A loss of this library; h: Huber 1964.
    """
    per_token = _of_tokens(x) if x.reference.likeliest is None else _of_predictions(x)
    per_row = x.sequence_sum(per_token) / x.lengths  # (B,)
    return x.sequence_mean((per_row + EPSILON**2).sqrt() - EPSILON)


def _of_predictions(x: ForwardPass) -> Tensor:
    """(N,) the divergence from the level's prediction of each token, and the token's own distance."""
    assert x.reference.likeliest is not None
    tokens, q = x.reference.likeliest  # (N, K)
    p = x.logp_of(tokens)
    other_q, other_p = (torch.log1p(-v.exp().sum(-1).clamp(max=1 - OTHERS)) for v in (q, p))
    divergence = (q.exp() * (q - p)).sum(-1) + other_q.exp() * (other_q - other_p)
    return divergence + OF_LABEL * _huber(logit(x.token_logp), logit(x.reference.token_logp))


def _of_tokens(x: ForwardPass) -> Tensor:
    """(N,) the same of what is known where there are no predictions."""
    p, q = x.token_logp, x.reference.token_logp
    return (
        _jeffreys(p, q) + LEAST_FORCE * _huber(logit(p), logit(q)) + CONFIDENCE * _huber(x.entropy, x.reference.entropy)
    )


def _huber(a: Tensor, b: Tensor) -> Tensor:
    return F.huber_loss(a, b, reduction="none")


def _jeffreys(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() - q.exp()) * (logit(p) - logit(q))


def logit(logp: Tensor) -> Tensor:
    """log p - log(1 - p + δ) of ``logp``, with δ = 1e-4.

    >>> [round(v, 2) for v in logit(torch.tensor([0.5, 0.25, 1.0]).log()).tolist()]
    [-0.0, -1.1, 9.21]
    """
    return logp - torch.log(DELTA - logp.expm1())
