r"""The network that predicts an arm's reward: its settings, initial weights, and two trainings on a few arms.

Arms are rows (n, d) after :func:`standardise`; rewards are (n,).  Training is full batch, in fp32, from the same initial
weights every time, so the result is a function of what was observed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from expunge.errors import InputError

LEARNING_RATE = 1e-3
CONSTANT = 1e-6  # a standard deviation under this share of the mean is round-off


@dataclass(frozen=True)
class Settings:
    """Width, ν (how much being unsure counts), λ (decay, and U's start), a name of ``TRAININGS``, its steps, the seed.

    ``steps`` None is the training's own number.
    """

    width: int = 100
    nu: float = 0.0001
    regulariser: float = 0.1
    training: str = "near_start"
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.training not in TRAININGS:
            raise InputError(f"the bandit's training must be one of {', '.join(TRAININGS)}, not {self.training!r}")
        for name, low in (("width", 1), ("steps", 1), ("nu", 0.0)):
            if getattr(self, name) is not None and not low <= getattr(self, name) < math.inf:
                raise InputError(f"the bandit's {name} must be at least {low}, not {getattr(self, name)}")
        if not 0 < self.regulariser < math.inf:
            raise InputError(f"the bandit's regulariser must be above 0, not {self.regulariser}")


class Network(NamedTuple):
    """One hidden ReLU layer: :math:`f(x) = w_2^\\top \\max(W_1 x + b_1, 0) + b_2`."""

    hidden: Tensor  # (width, d)
    hidden_bias: Tensor  # (width,)
    output: Tensor  # (width,)
    output_bias: Tensor  # ()

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n,)."""
        return torch.relu(x @ self.hidden.T + self.hidden_bias) @ self.output + self.output_bias


class Surrogate(NamedTuple):
    """Predicts a reward: ``offset`` + the trained network, less the network at ``start`` if there is one."""

    network: Network
    start: Network | None = None
    offset: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) -> (n,)."""
        return self.offset + self.network(x) - (0 if self.start is None else self.start(x))

    def double(self) -> Surrogate:
        """The same in fp64."""
        start = None if self.start is None else Network(*(p.double() for p in self.start))
        return Surrogate(Network(*(p.double() for p in self.network)), start, self.offset)


def initial(d: int, settings: Settings) -> Network:
    r"""The weights that every training starts from: a function of ``d``, the width and the seed.

    .. math:: W_1 \sim N(0, 2/d), \qquad w_2 \sim N(0, 1/\text{width}), \qquad b_1 = b_2 = 0

    INSTINCT draws all of them from N(0, 1); with hundreds of features the untrained network's values are then in the
    hundreds where rewards lie in [0, 1], and what is left of them off the observed arms hides what was learned.
    """
    random = torch.Generator().manual_seed(settings.seed)
    hidden = torch.randn(settings.width, d, generator=random) * math.sqrt(2 / d)
    output = torch.randn(settings.width, generator=random) * math.sqrt(1 / settings.width)
    return Network(hidden, torch.zeros(settings.width), output, torch.zeros(()))


def standardise(features: Tensor, reference: Tensor) -> Tensor:
    """``features`` (N, d) standardised by the mean and standard deviation of the rows ``reference`` (n, d).

    A coordinate that is the same in all of ``reference`` is only shifted.
    """
    mean, std = reference.mean(0), reference.std(0, correction=0)
    return (features - mean) / torch.where(std > CONSTANT * mean.abs(), std, 1.0)


def near_start(x: Tensor, rewards: Tensor, settings: Settings) -> Surrogate:
    r"""A prediction that starts as the observed mean reward and changes as little as the observations require.

    .. math:: \tfrac1n \sum_i \bigl(\bar r + f(x_i; \theta) - f(x_i; \theta_0) - r_i\bigr)^2
        + \tfrac{\lambda}{2n} \|\theta - \theta_0\|^2

    30 iterations of L-BFGS unless the settings say otherwise.  As in NeuralUCB's paper, where weights stay near the
    initial ones and the initial function is 0 (there by mirrored weights, here by subtraction, which leaves all
    gradients alone).  Deviates from the published code, :func:`published`: there the random initial function, as large
    as the rewards, stays in the prediction where no arm was observed, and decay towards 0 removes the features with it.

    Zhou et al. 2020, arXiv:1911.04462.
    """
    start = initial(x.shape[1], settings)
    network = Network(*(p.clone().requires_grad_() for p in start))
    x, offset = x.float(), float(rewards.double().mean())
    targets = (rewards.double() - offset).float() + start(x)
    steps = settings.steps or 30
    lbfgs = torch.optim.LBFGS(
        network, max_iter=steps, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        lbfgs.zero_grad()
        moved = torch.stack([(p - q).square().sum() for p, q in zip(network, start, strict=True)]).sum()
        loss = (network(x) - targets).square().mean() + settings.regulariser / (2 * len(x)) * moved
        loss.backward()
        return loss

    lbfgs.step(objective)  # turns gradients on itself
    return Surrogate(Network(*(p.detach() for p in network)), start, offset)


def published(x: Tensor, rewards: Tensor, settings: Settings) -> Surrogate:
    r"""The network trained as INSTINCT's code does, on raw rewards; only the initial weights are scaled.

    .. math:: \tfrac1n \sum_i \bigl(f(x_i) - r_i\bigr)^2 + \tfrac{\lambda}{2n} \|\theta\|^2

    1000 steps of Adam unless the settings say otherwise; its weight decay λ/n is the second term's gradient.

    Lin et al. 2024, arXiv:2310.02905.
    """
    x, rewards = x.float(), rewards.float()
    network = Network(*(p.requires_grad_() for p in initial(x.shape[1], settings)))
    adam = torch.optim.Adam(network, lr=LEARNING_RATE, weight_decay=settings.regulariser / len(x), fused=True)
    with torch.enable_grad():
        for _ in range(settings.steps or 1000):
            adam.zero_grad()
            (network(x) - rewards).square().mean().backward()
            adam.step()
    return Surrogate(Network(*(p.detach() for p in network)))


TRAININGS = {"near_start": near_start, "published": published}


def fit(x: Tensor, rewards: Tensor, settings: Settings) -> Surrogate:
    """The surrogate trained as in ``settings`` on standardised arms (n, d) and their rewards (n,)."""
    return TRAININGS[settings.training](x, rewards, settings)
