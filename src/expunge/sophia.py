r"""Sophia, the second-order optimizer of SOUL, for any method: a clipped step preconditioned by a diagonal curvature.

.. math:: m \leftarrow \beta_1 m + (1-\beta_1)\, g, \qquad h \leftarrow \beta_2 h + (1-\beta_2)\, \hat h, \qquad
    \theta \leftarrow \theta - \eta\lambda\theta - \eta\, \mathrm{clip}\bigl(m / \max(\rho h, \epsilon),\, 1\bigr)

g the gradient, :math:`\hat h` an estimate of the curvature that comes every few steps, η the learning rate, λ the
decoupled weight decay, both as the :class:`~transformers.Trainer` gives them.  Where the curvature is small, zero or
negative the step is the sign of m; where it is large it is Newton's step over ρ.  Neither moment is corrected for its
start at zero, as in the paper.

Three estimators, none of which knows a model: Gauss-Newton-Bartlett (from labels that the model samples itself),
Hutchinson, and the squared gradient of SOUL's published code.  :mod:`expunge.training.curvature` runs them in training.

Liu et al. 2023 (Sophia), arXiv:2305.14342; Jia et al. 2024 (SOUL), arXiv:2404.18239.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

Estimator = Literal["gauss_newton", "hutchinson", "squared_gradient"]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

CHUNK = 1 << 22  # elements of the largest temporary in sampling labels


@dataclass(frozen=True)
class Settings:
    r"""Sophia as a value, which a method or a run carries; learning rate and weight decay are training arguments.

    ``beta1``, ``beta2`` and ``rho``: the formula's, with the numbers of SOUL's configurations (Sophia's own are 0.965,
    0.99, 0.04).  ``curvature`` is estimated at every ``every``-th optimizer step, 10 as in the paper.
    ``radius``: how far Hutchinson's central difference goes along its probe.  A step of few tokens has a noisy momentum, and
    with this ρ nearly all coordinates are clipped: the log's ``clipped`` says how many, a larger ρ makes them fewer.

    :data:`PUBLISHED` is what SOUL's published code does.
    """

    beta1: Share = 0.9
    beta2: Share = 0.95
    rho: Positive = 0.04
    eps: Positive = 1e-15
    curvature: Estimator = "gauss_newton"
    every: Annotated[int, Field(ge=1)] = 10
    radius: Positive = 1e-3

    @property
    def of_the_step(self) -> dict[str, float]:
        """What :class:`Sophia` takes besides the training arguments."""
        return {"beta1": self.beta1, "beta2": self.beta2, "rho": self.rho, "eps": self.eps}


PUBLISHED = Settings(beta1=0.81, beta2=0.95, rho=0.04 * 5120, curvature="squared_gradient", every=1)
r"""SOUL's published code, which differs from its paper: every step takes the squared gradient as the curvature, the
momentum moves twice a step, and the curvature is multiplied by a fixed 5120.

Momentum twice with 0.9 is momentum once with :math:`0.9^2`: m ← 0.9 (0.9 m + 0.1 g) + 0.1 g = 0.81 m + 0.19 g.  That code
adds ε to the denominator where this takes the larger of the two, which are the same but within a factor of 2 of ε = 1e-15.
"""

# What a user can ask for; "adamw" leaves the choice to the training argument `optim`.
OPTIMIZERS: Mapping[str, Settings | None] = {"adamw": None, "sophia": Settings(), "sophia_published": PUBLISHED}


class Sophia(torch.optim.Optimizer):
    """The step above, given ``p.grad`` and, through :meth:`update_curvature`, estimates of the curvature.

    Momentum and curvature are held in fp32 whatever the weights are, and survive ``load_state_dict`` so.  No value of a
    tensor is read back to the host.

    >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.001]))
    >>> sophia = Sophia([w], lr=0.1, beta1=0.0, beta2=0.0, rho=1.0, weight_decay=0.0)
    >>> w.grad = 4 * w.detach().clone()  # of the loss 2 w², whose second derivative is 4
    >>> sophia.update_curvature({w: torch.full((2,), 4.0)})
    >>> sophia.step()
    >>> [round(x, 5) for x in w.tolist()]  # 1 - 0.1 · clip(4 / 4, 1), and 0.001 - 0.1 · 0.004 / 4
    [0.9, 0.0009]
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        beta1: float = 0.9,
        beta2: float = 0.95,
        rho: float = 0.04,
        eps: float = 1e-15,
        weight_decay: float = 0.1,
    ):
        super().__init__(
            params, {"lr": lr, "beta1": beta1, "beta2": beta2, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        )

    def _moments(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """(momentum, curvature) of ``p``, zero at first."""
        state = self.state[p]
        if not state:
            for key in ("momentum", "curvature"):
                state[key] = torch.zeros_like(p, dtype=torch.float32, memory_format=torch.preserve_format)
        return state["momentum"], state["curvature"]

    @torch.no_grad()
    def update_curvature(self, estimates: Mapping[Tensor, Tensor]) -> None:
        """Move the curvature of each parameter given towards its estimate (same shape); the others stay."""
        for group in self.param_groups:
            for p in group["params"]:
                if p in estimates:
                    self._moments(p)[1].lerp_(estimates[p].float(), 1 - group["beta2"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient; all tensors of a group in the same few kernels."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            momentum, curvature = map(list, zip(*map(self._moments, params), strict=True))
            torch._foreach_lerp_(momentum, [p.grad.float() for p in params], 1 - group["beta1"])
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, _direction(momentum, curvature, group), alpha=-group["lr"])
        return loss

    @torch.no_grad()
    def clipped(self) -> Tensor:
        """The share of coordinates, of all that have moved, whose last step was cut to the learning rate: a scalar.

        Near 1 the curvature decides nothing and the step is the momentum's sign; a larger ρ lets it speak.
        """
        hits, total = [], 0
        for group in self.param_groups:
            if moved := [p for p in group["params"] if p in self.state]:
                momentum, curvature = map(list, zip(*map(self._moments, moved), strict=True))
                hits += [(u.abs() >= 1).sum() for u in _direction(momentum, curvature, group)]
                total += sum(p.numel() for p in moved)
        share = torch.stack(hits).sum() / total if hits else torch.zeros(())
        return share.full_tensor() if hasattr(share, "full_tensor") else share  # of all processes' shards

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, but the moments stay in fp32, which the base class casts to the weights' type."""
        super().load_state_dict(state_dict)
        theirs = [i for group in state_dict["param_groups"] for i in group["params"]]
        ours = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(theirs, ours, strict=True):
            for key, value in state_dict["state"].get(i, {}).items():
                self.state[p][key] = value.detach().to(p.device, torch.float32, copy=True)


def _direction(momentum: list[Tensor], curvature: list[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
    """clip(m / max(ρ h, ε), 1) of each tensor: one temporary as large as the weights."""
    out = torch._foreach_mul(curvature, group["rho"])
    torch._foreach_clamp_min_(out, group["eps"])
    torch._foreach_reciprocal_(out)
    torch._foreach_mul_(out, momentum)
    torch._foreach_clamp_min_(out, -1.0)
    torch._foreach_clamp_max_(out, 1.0)
    return list(out)


# -- estimators -----------------------------------------------------------------------------------------------------------
def gauss_newton_bartlett(gradient: Tensor, tokens: Tensor | float) -> Tensor:
    r"""The diagonal of the Gauss-Newton matrix of a mean cross entropy over B tokens, from one gradient.

    .. math:: \hat h = B\, \hat g \odot \hat g, \qquad
        \hat g = \nabla \tfrac{1}{B} \sum_t -\log \pi_\theta(\hat y_t \mid x, y_{<t}), \quad
        \hat y_t \sim \pi_\theta(\cdot \mid x, y_{<t})

    Unbiased, because a token's gradient is zero in the mean over sampled labels, so different tokens' do not mix.
    ``gradient``: ĝ; ``tokens``: B.

    Hand-worked: one token, logits (z, 0) with z = 0: ĝ is p - 1 = -1/2 or p = 1/2, ĥ = 1/4 = p (1 - p).

    Liu et al. 2023, algorithm 2, arXiv:2305.14342.
    """
    return tokens * gradient.float() ** 2


def squared_gradient(gradient: Tensor) -> Tensor:
    """The gradient of the loss itself, squared: what SOUL's published code takes for the curvature; its sign is lost."""
    return gradient.float() ** 2


def hutchinson(
    loss: Callable[[], Tensor], params: Sequence[Tensor], probes: Sequence[Tensor], radius: float = 1e-3
) -> list[Tensor]:
    r"""The diagonal of the Hessian of ``loss``, from one probe u of random signs.

    .. math:: \hat h = u \odot H u, \qquad H u \approx \frac{\nabla L(\theta + r u) - \nabla L(\theta - r u)}{2r}

    A central difference of two gradients, exact to O(r²), where Sophia's authors differentiate twice: it needs no second
    derivative of attention kernels and of this library's own, no graph of a graph, and works under DDP and gradient
    checkpointing.  Its price: gradients must be exact to fp32.  Signs instead of their normal numbers: the same mean,
    and no noise from the diagonal itself.

    Hand-worked: L = x² + 3xy + 2y², H = ((2, 3), (3, 4)): u = (1, 1) gives (5, 7), u = (1, -1) gives (-1, 1), mean (2, 4).
    """
    products = [torch.zeros_like(p) for p in params]
    for factor in displaced(params, probes, radius):
        for total, g in zip(products, torch.autograd.grad(factor * loss(), params), strict=True):
            total += g
    return [u * product for u, product in zip(probes, products, strict=True)]


def displaced(params: Sequence[Tensor], probes: Sequence[Tensor], radius: float) -> Iterator[float]:
    r"""Put the weights at θ + r u, then at θ - r u, and back, bit for bit; each time the factor :math:`\pm 1/2r` is given.

    The gradients of ``factor * loss`` at the two places add up to H u.
    """
    start = [p.detach().clone() for p in params]
    try:
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for p, at, u in zip(params, start, probes, strict=True):
                    p.copy_(at).add_(u, alpha=sign * radius)
            yield sign / (2 * radius)
    finally:
        with torch.no_grad():
            for p, at in zip(params, start, strict=True):
                p.copy_(at)


# -- chance: a pure function of the seed, the step and the row ------------------------------------------------------------
def generator(*key: str | int, device: Any = "cpu") -> torch.Generator:
    """A generator that is a function of ``key`` alone, so a run that is resumed or cut up draws the same numbers."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest) >> 1)


def signs(params: Sequence[Tensor], *key: str | int) -> list[Tensor]:
    """A probe: ±1 with equal chance for every coordinate of ``params``; of a DTensor the same, cut as it is."""
    made = {p.device: generator(*key, device=p.device) for p in params}
    return [
        _cut_as(p, torch.randint(0, 2, p.shape, generator=made[p.device], device=p.device).to(p.dtype).mul_(2).sub_(1))
        for p in params
    ]


def _cut_as(p: Tensor, value: Tensor) -> Tensor:
    """``value`` (shape of ``p``, the same in every process) in shards, where ``p`` is."""
    if not hasattr(p, "placements"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, p.device_mesh, p.placements)  # type: ignore[attr-defined]


@torch.no_grad()
def sample_labels(logits: Tensor, uniform: Tensor) -> Tensor:
    """(N, V), (N,) numbers in [0, 1) -> (N,) labels of chance softmax(logits): the first whose cumulated chance exceeds it.

    One number a token, not V, so that a token's label hangs on nothing else in the batch.

    >>> sample_labels(torch.tensor([[0.0, 0.0]]).expand(2, 2), torch.tensor([0.49, 0.51])).tolist()
    [0, 1]
    """
    out = []
    rows = max(1, CHUNK // logits.shape[-1])
    for z, u in zip(logits.split(rows), uniform.split(rows), strict=True):
        chance = z.float().softmax(-1).cumsum(-1)
        found = torch.searchsorted(chance, u[:, None] * chance[:, -1:], right=True)
        out.append(found.squeeze(1).clamp(max=logits.shape[-1] - 1))
    return torch.cat(out)
