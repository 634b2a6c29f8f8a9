r"""What a model that never saw a row predicts at its labelled tokens: the probabilities of each and of the likeliest ones.

The model may be calibrated by a temperature T and a shift s: its logits z are divided by T, and the odds of the labelled
token y are divided by exp(s), the others sharing what it gives up, or giving what it gets, in proportion,

.. math:: q = \mathrm{softmax}(z / T), \qquad q'_y = \sigma(\operatorname{logit} q_y - s), \qquad
    q'_k = q_k \,\frac{1 - q'_y}{1 - q_y} \quad (k \ne y).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from expunge.forward.family import unwrap
from expunge.forward.view import see

LIKELIEST = 32  # tokens of each prediction that are cached
ROUNDING = 1e-7  # of 1 - p, at least: what float32 tells from 1


class Calibration(NamedTuple):
    """T and s of the module."""

    temperature: float
    shift: float


AS_IT_IS = Calibration(1.0, 0.0)


@torch.no_grad()
def predictions(model: nn.Module, batch: Mapping[str, Any], how: Calibration = AS_IT_IS) -> Tensor:
    """(N, 1 + 2K) of each labelled token of ``batch``: see :func:`packed`."""
    x = see(unwrap(model), batch, grad=False)
    return packed(x.logits, x.labels, how)


def packed(logits: Tensor, labels: Tensor, how: Calibration = AS_IT_IS) -> Tensor:
    """(N, V), (N,) -> (N, 1 + 2K): the label's log-probability, the K likeliest tokens, theirs; fp32 holds ids exactly.

    >>> packed(torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([1]), Calibration(0.5, 0.0))[0, 0].exp()  # ¹⁄₁₆ of ⅜
    tensor(0.1667)
    """
    scaled = logits.float() / how.temperature
    normaliser = scaled.logsumexp(-1, keepdim=True)
    top, tokens = scaled.topk(min(LIKELIEST, scaled.shape[-1]), -1)
    values = torch.cat([scaled.gather(1, labels[:, None]) - normaliser, tokens.float(), top - normaliser], -1)
    return shifted(values, labels, how.shift)


def shifted(values: Tensor, labels: Tensor, shift: float) -> Tensor:
    """(N, 1 + 2K) with the odds of the ``labels`` (N,) divided by exp(``shift``), and the others in proportion.

    >>> half = packed(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([0]))
    >>> unpacked(shifted(half, torch.tensor([0]), 1.0986))[1][1].exp()  # ln 3: odds of ⅓
    tensor([[0.2500, 0.4500, 0.3000]])
    """
    before = values[:, :1]
    after = moved(before, shift)
    tokens, logp = values[:, 1:].chunk(2, -1)
    others = logp + (_complement(after) - _complement(before))
    return torch.cat([after, tokens, torch.where(tokens == labels[:, None], after, others)], -1)


def unpacked(values: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """(N, 1 + 2K) -> the labels' log-probabilities (N,), and the likeliest tokens and theirs (N, K)."""
    tokens, logp = values[:, 1:].chunk(2, -1)
    return values[:, 0], (tokens.long(), logp)


def exchange(values: Tensor, a: int, b: int) -> None:
    """Exchange the tokens ``a`` and ``b`` among the likeliest of (N, 1 + 2K), in place.

    >>> values = packed(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([1]))
    >>> exchange(values, 0, 2)
    >>> unpacked(values)[1][0]
    tensor([[2, 1, 0]])
    """
    tokens, _ = values[:, 1:].chunk(2, -1)
    of_a, of_b = tokens == a, tokens == b
    tokens[of_a], tokens[of_b] = b, a


def moved(logp: Tensor, shift: float) -> Tensor:
    """log σ(logit p - ``shift``) of ``logp`` = log p: the odds p / (1 - p) divided by exp(``shift``).

    >>> [round(v, 4) for v in moved(torch.tensor([0.5, 0.9]).log(), 1.0986).exp().tolist()]  # ln 3
    [0.25, 0.75]
    """
    if shift == 0:
        return logp
    return torch.nn.functional.logsigmoid(logp.double() - _complement(logp).double() - shift).to(logp.dtype)


def _complement(logp: Tensor) -> Tensor:
    """log(1 - p)."""
    return (-logp.double().expm1()).clamp(min=ROUNDING).log().to(logp.dtype)
