r"""NeuralUCB: which arm to ask next, from a small network's prediction of every arm's reward and its uncertainty.

An *arm* is a row of ``features`` (N, d), given once; *observed* is the list of (arm, reward) so far, the only
state: every function here is pure, so an interrupted search resumes with the same choices from its list (on the same
machine and number of threads).  Everything runs on the CPU: the network has 60 thousand weights.

Zhou et al. 2020, arXiv:1911.04462, on soft prompts Lin et al. 2024 (INSTINCT), arXiv:2310.02905.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from expunge.errors import InputError
from expunge.reveal.surrogate import Network, Settings, fit, standardise

Observed = Sequence[tuple[int, float]]
DEFAULTS = Settings()


def spread(network: Network, x: Tensor, observed: Tensor, settings: Settings = DEFAULTS) -> Tensor:
    r"""How unsure the network is of each arm of ``x`` (N, d), given the arms ``observed`` (n, d): (N,).

    .. math:: \sqrt{\lambda\nu \sum_p g_p(x)^2 / U_p}, \qquad U = \lambda + \sum_{i \in \text{observed}} g(x_i)^2,
        \qquad g = \nabla_\theta f

    Without any arm's gradient in memory: with :math:`h = W_1 x + b_1`, :math:`a = \max(h, 0)` and
    :math:`m_k = [h_k > 0]\, w_{2,k}` the gradients are :math:`m x^\top, m, a, 1`, so the sum is three matrix products,

    .. math:: (x^2)^\top U_{W_1}^{-1} m^2 + (U_{b_1}^{-1})^\top m^2 + (U_{w_2}^{-1})^\top a^2 + U_{b_2}^{-1}

    Deviates from published code, where U keeps the gradients that the network had when each arm was chosen, and leaves the
    arms asked before the first choice out.  Here all observed arms count, with the gradients of the network as it is: the
    bound is then a function of the observations (a search resumes from its list alone), and no gradient in it belongs
    to a network and a standardisation that have been replaced since.

    Hand-worked: width 1, d = 1, W₁ = 1, w₂ = 2, no biases, λ = 1, ν = 1, observed x = 1: g = (2, 2, 1, 1), U = (5, 5, 2, 2);
    at x = 3 g = (6, 2, 3, 1), the sum is 36/5 + 4/5 + 9/2 + 1/2 = 13, the spread √13 = 3.606.
    """
    active, slopes = _squared_gradients(network, observed)
    start = settings.regulariser
    u_hidden = start + slopes.T @ observed.square()  # (width, d)
    u_hidden_bias, u_output = start + slopes.sum(0), start + active.sum(0)  # (width,) each
    active, slopes = _squared_gradients(network, x)
    total = (slopes @ (1 / u_hidden) * x.square()).sum(1) + slopes @ (1 / u_hidden_bias) + active @ (1 / u_output)
    return (start * settings.nu * (total + 1 / (start + len(observed)))).sqrt()


def predict(
    features: Tensor, observed: Observed, settings: Settings = DEFAULTS, *, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Predicted reward and spread of each arm in ``rows`` (all arms if None), fp64, from a network fitted to ``observed``.

    InputError where nothing is observed, an index is no arm's, or a number is not finite.
    """
    features = checked_features(features)
    arms, rewards = as_tensors(observed, len(features))
    observed_features = features[arms]
    x = standardise(features if rows is None else features[rows], observed_features)  # (N, d)
    observed_features = standardise(observed_features, observed_features)
    surrogate = fit(observed_features, rewards, settings).double()
    return surrogate(x), spread(surrogate.network, x, observed_features, settings)


def choose(
    features: Tensor,
    observed: Observed,
    allowed: Sequence[bool] | Tensor,
    settings: Settings = DEFAULTS,
    *,
    predictor: Callable[..., tuple[Tensor, Tensor]] = predict,
) -> int:
    """The arm to ask next: of those ``allowed`` (N,), the first with the largest sum of predicted reward and spread.

    ``predictor``: the function that predicts them, of the network or :func:`expunge.reveal.linear.predict`.

    The caller excludes arms that were asked before.  One training a call.
    InputError as in :func:`predict`, and where no arm is allowed.
    """
    mask = torch.as_tensor(allowed).cpu()
    if mask.dtype != torch.bool or mask.shape != features.shape[:1]:
        raise InputError(f"the arms allowed: give {len(features)} times True or False, one for each arm")
    rows = mask.nonzero().flatten()
    if not len(rows):
        raise InputError("no arm is allowed: every one was asked; draw more arms or ask fewer questions")
    mean, uncertainty = predictor(features, observed, settings, rows=rows)
    return int(rows[(mean + uncertainty).argmax()])


def _squared_gradients(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of f(x) by the output weights and by the hidden biases: (n, width) each."""
    pre_activation = x @ network.hidden.T + network.hidden_bias
    return torch.relu(pre_activation).square(), (pre_activation > 0) * network.output.square()


def checked_features(features: Tensor) -> Tensor:
    """The features in fp64 on the CPU."""
    if features.ndim != 2 or not features.numel():
        raise InputError(f"the arms' features: give a table of arms × features, not the shape {tuple(features.shape)}")
    values = features.detach().to("cpu", torch.float64)
    if not values.isfinite().all():
        row = int((~values.isfinite().all(1)).nonzero()[0])
        raise InputError(f"the arms' features: those of arm {row} are not all finite; leave that arm out")
    return values


def as_tensors(observed: Observed, arms: int) -> tuple[Tensor, Tensor]:
    """Indices (n,) and rewards (n,)."""
    if not observed:
        raise InputError("nothing is observed yet: ask a few arms at random first")
    for index, reward in observed:
        if not 0 <= index < arms:
            raise InputError(f"observed arm {index}: there are {arms} arms, counted from 0")
        if not math.isfinite(reward):
            raise InputError(f"observed arm {index}: its reward is {reward}; give a finite number")
    indices, rewards = zip(*observed, strict=True)
    return torch.tensor(indices), torch.tensor(rewards, dtype=torch.float64)
