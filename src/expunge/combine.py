r"""How objectives meet: a combiner turns the Gramian of their gradients into one weight per objective.

With :math:`J` the m×P matrix of the objectives' gradients (forget first, retain second), a combiner sees the losses
(m,) and, if it asks, :math:`G = J J^\top` (m, m); the step taken is :math:`w^\top J`.  It never sees a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from expunge.errors import InputError

SMOOTH = 0.2  # of the way to a step's retain loss: how fast its running mean follows
TINY = 1e-30  # a squared gradient norm under this is a zero gradient


class Combiner(Protocol):
    """What the trainer asks of every combiner.

    Only ``weights`` has to be written: the rest is that of a combiner which follows the losses alone, has nothing to settle
    before training and does not move.  Write ``class Mine(Combiner)``, or any class with these names.
    """

    needs_gram: ClassVar[bool] = False
    """Whether ``weights`` reads the Gramian, which costs one gradient buffer per further objective."""

    @property
    def needs_start(self) -> bool:
        """Whether what :meth:`settle` gives follows from the start model's losses, so that they must be measured exactly."""
        return False

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """(m,), (m, m) -> (m,) weights."""

    def settle(self, steps: int, measure: Callable[[int], float]) -> Combiner:
        """The combiner to train with: ``steps`` optimizer steps; ``measure(k)`` is the start model's loss of objective k."""
        return self

    def step(self, losses: Tensor) -> None:
        """Move, once per optimizer step, on the step's mean losses (m,) over all micro-batches and ranks."""
        return

    def facts(self) -> Mapping[str, Tensor]:
        """Scalars that the log of an optimizer step carries beside losses and weights, as they are in that step."""
        return {}

    def watch(self, facts: Mapping[str, float]) -> str | None:
        """What the user is to be warned of, given what a step was logged with ({} before the first step)."""
        return None

    def budget_of(self, losses: Sequence[float]) -> dict[str, Any] | None:
        """What became of a budget on the second objective, whose logged losses are ``losses``; None where there is none."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold; {} where nothing moves."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a checkpoint's state."""
        return


def complete(given: Any) -> Combiner:
    """``given``, with the defaults of :class:`Combiner` where it lacks them; InputError if it has no ``weights``.

    >>> class Half:
    ...     needs_gram = False
    ...     def weights(self, losses, gram):
    ...         return losses.new_full((len(losses),), 0.5)
    >>> complete(Half()).state_dict()
    {}
    """
    if not callable(getattr(given, "weights", None)):
        raise InputError(f"a combiner has a method weights(losses, gram), and {given!r} has none")
    for name in ("settle", "step", "facts", "watch", "budget_of", "state_dict", "load_state_dict"):
        if not hasattr(given, name):
            object.__setattr__(given, name, MethodType(getattr(Combiner, name), given))  # it may be a frozen dataclass
    for name in ("needs_gram", "needs_start"):
        if not hasattr(given, name):
            object.__setattr__(given, name, False)
    made: Combiner = given
    return made


@dataclass(frozen=True)
class WeightedSum(Combiner):
    r"""Fixed weights: :math:`w = (w_f, w_r)`.  The classic: GradDiff, NPO, SimNPO, DPO."""

    forget: float = 1.0
    retain: float = 1.0
    needs_gram: ClassVar[bool] = False

    def weights(self, losses: Tensor, gram: Tensor | None = None) -> Tensor:
        """The two constants, cut to the number of objectives."""
        return torch.stack([losses.new_full((), w) for w in (self.forget, self.retain)[: len(losses)]])


@dataclass(frozen=True)
class Bilevel(Combiner):
    r"""BLUR: forgetting has priority; the retain gradient is projected off the forget gradient.

    .. math:: u = g_r + \xi g_f, \qquad \xi = \gamma - \frac{\langle g_f, g_r\rangle}{\|g_f\|^2}

    so :math:`\langle g_f, u\rangle = \gamma\|g_f\|^2`: the forget loss falls exactly as under gradient descent with γ.

    ``relative=True`` makes γ scale-free: it multiplies :math:`\|g_r\|/\|g_f\|`, so the forget part of the step is γ times
    as long as the retain gradient however steep the forget loss is.  ``one_sided=True`` projects only as far as γ
    asks, :math:`\xi = \max(\gamma - \langle g_f, g_r\rangle/\|g_f\|^2, 0)` (the dynamic barrier).  The published WMDP
    code's α is γ = 1/α.  Where g_f = 0, u = g_r.

    The identities hold for the gradient handed to the optimizer; Adam's preconditioning bends them.
    Reisizadeh et al. 2025, arXiv:2506.08164.
    """

    gamma: float = 1.0
    relative: bool = False
    one_sided: bool = False
    needs_gram: ClassVar[bool] = True

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """ξ for the forget gradient, 1 for the retain gradient."""
        assert gram is not None
        ff, fr, rr = gram[0, 0], gram[0, 1], gram[1, 1]
        zero = ff <= TINY
        safe = torch.where(zero, torch.ones_like(ff), ff)
        gamma = self.gamma * (rr.clamp(min=0) / safe).sqrt() if self.relative else torch.full_like(ff, self.gamma)
        xi = gamma - fr / safe
        if self.one_sided:
            xi = xi.clamp(min=0)
        return torch.stack([torch.where(zero, torch.zeros_like(xi), xi), torch.ones_like(xi)])


@dataclass(frozen=True)
class PCGrad(Combiner):
    r"""Gradient surgery: where the two gradients conflict, each loses its part along the other; then they are added.

    .. math:: u = g_f + g_r - \min(0, \langle g_f, g_r\rangle)
        \Bigl(\frac{g_r}{\|g_r\|^2} + \frac{g_f}{\|g_f\|^2}\Bigr)

    With two objectives the paper's random order has nothing to choose, so this is exact; without conflict, or where a
    gradient is 0, it is their sum.

    Hand-worked: g_f = (1, 0), g_r = (-1, 1) have ⟨g_f, g_r⟩ = -1, so w = (1 + 1/1, 1 + 1/2) and u = (½, 3/2).

    Yu et al. 2020, algorithm 1, arXiv:2001.06782.
    """

    needs_gram: ClassVar[bool] = True

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """1 - min(0, ⟨g_f, g_r⟩) / ‖g‖² for each of the two."""
        norms, conflict = _two(self, gram)
        zero = norms <= TINY
        return 1 - (conflict.clamp(max=0) / norms.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


@dataclass(frozen=True)
class MGDA(Combiner):
    r"""Multiple-gradient descent: the shortest vector between the two gradients; both losses fall, or it is 0.

    .. math:: u = \alpha g_f + (1-\alpha) g_r, \qquad
        \alpha = \operatorname{clip}_{[0,1]} \frac{\|g_r\|^2 - \langle g_f, g_r\rangle}{\|g_f - g_r\|^2}

    :math:`\langle g, u\rangle \ge \|u\|^2` for both.  The weights sum to 1 and favour the smaller gradient.  Equal
    gradients get 1/2 each.

    Hand-worked: g_f = (2, 0), g_r = (0, 1) give α = 1/5 and u = (2/5, 4/5).

    Désidéri 2012; Sener & Koltun 2018, eq. 4, arXiv:1810.04650.
    """

    needs_gram: ClassVar[bool] = True

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """(α, 1 - α), in closed form."""
        (ff, rr), fr = _two(self, gram)
        apart = ff + rr - 2 * fr
        equal = apart <= TINY
        alpha = ((rr - fr) / apart.masked_fill(equal, 1.0)).clamp(0, 1).masked_fill(equal, 0.5)
        return torch.stack([alpha, 1 - alpha])


@dataclass(frozen=True)
class NormalizedDifference(Combiner):
    r"""NGDiff: each gradient at unit length, so neither objective outgrows the other.

    .. math:: u = \frac{g_f}{\|g_f\|} + \frac{g_r}{\|g_r\|}

    The paper writes a difference, for its forget loss is one to be climbed; ours are descended.  A zero gradient stays
    zero.  The paper's own learning-rate schedule (GeN) is not part of it.

    Hand-worked: g_f = (3, 4), g_r = (0, 2) give w = (1/5, 1/2) and u = (0.6, 1.8).

    Bu et al. 2024, arXiv:2410.22086.
    """

    needs_gram: ClassVar[bool] = True

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """1 / ‖g‖ of each objective."""
        assert gram is not None
        squared = gram.diagonal()
        zero = squared <= TINY
        return squared.masked_fill(zero, 1.0).rsqrt().masked_fill(zero, 0.0)


@dataclass(frozen=True)
class TorchJD(Combiner):
    """Any ``torchjd.aggregation`` weighting of a Gramian, such as ``TorchJD(UPGradWeighting())``.

    What a weighting keeps between steps is not in a checkpoint.  Quinton & Rey 2024, arXiv:2406.16232.
    """

    weighting: Any
    needs_gram: ClassVar[bool] = True

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """What the weighting says of the Gramian."""
        weights: Tensor = self.weighting(gram)
        return weights

    def __repr__(self) -> str:
        return f"TorchJD({type(self.weighting).__name__})"


def _two(combine: Combiner, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """(2, 2) -> the squared norms (2,) and the inner product."""
    assert gram is not None
    if len(gram) != 2:
        raise ValueError(f"{type(combine).__name__} is for two objectives, not {len(gram)}; for more take TorchJD")
    return gram.diagonal(), gram[0, 1]


def _moved(ratio: Tensor, by: Tensor) -> Tensor:
    """A positive ratio moved ``by`` so much: itself where it is above 1, its inverse (the other way) where it is below.

    >>> [round(float(_moved(torch.tensor(r), torch.tensor(b))), 2) for r, b in ((3.0, 0.5), (1.5, -1.0), (0.5, 1.5))]
    [3.5, 0.67, 1.5]
    """
    place = torch.where(ratio >= 1, ratio - 1, 1 - 1 / ratio) + by
    return torch.where(place >= 0, 1 + place, 1 / (1 - place))


@dataclass
class PrimalDual(Combiner):
    r"""PDU: forget subject to a budget ε on the retain loss, by dual ascent on the multiplier λ.

    .. math:: \min_\theta L_f \;\text{s.t.}\; L_r \le \varepsilon, \qquad
        w = (1, \lambda), \quad \lambda \leftarrow \min\bigl(\lambda_{\max}, [\lambda + \eta (L_r - \varepsilon)]_+\bigr)

    λ moves once per optimizer step, on the step's mean retain loss over micro-batches and ranks, after
    ``warmup`` of the run's optimizer steps, a share, or after ``warmup_steps`` where that is given (public code gates on
    epochs and can end before its first dual step).

    ``budget`` ε in nats per token; None takes ``(1 + tolerance) ×`` the start model's retain loss, which
    :meth:`settle` measures, or with ``keep`` that loss + log(1 / keep): the share of the probability of retain tokens, their
    geometric mean, that may not be lost.  ``multiplier`` is λ at the start, ``step_size`` η, ``max_multiplier`` λ_max.  A
    ``min_multiplier`` above 0 keeps λ from falling below it: the retain loss is then part of what is minimised, too.
    With ``keep`` the excess over the budget counts in units of log(1 / keep), at most 1 and at least -1: λ moves by no more
    than η a step and comes down as fast as it goes up, however far the first steps overshoot.  It is the excess of a running
    mean, a fifth of the way to each step's loss (from the start model's), since a few rows say little of a twentieth.  Below
    1 it is 1/λ that moves so: while the budget is kept, forgetting weighs more and more beside the retain loss.
    The retain loss is the second of the two objectives, whatever its name.
    Entesari et al. 2025, arXiv:2506.05314.
    """

    budget: float | None = None
    tolerance: float = 0.5
    step_size: float = 5.0
    multiplier: float = 100.0
    warmup: float = 0.5
    warmup_steps: int | None = None
    max_multiplier: float = 1000.0
    keep: float | None = None
    min_multiplier: float = 0.0
    needs_gram: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._lambda: float | Tensor = float(self.multiplier)
        self._steps = 0
        self._start: float | None = None  # the start model's retain loss
        self._mean: float | Tensor | None = None  # the running mean of the retain loss, with `keep`
        self._at_zero = 0  # logged steps in a row with λ = 0

    @property
    def needs_start(self) -> bool:
        """A budget that was given is only compared with the start model's loss, unless a running mean begins there."""
        return self.budget is None or self.keep is not None

    def settle(self, steps: int, measure: Callable[[int], float]) -> PrimalDual:
        """A copy with every number known: the budget and the warm-up in optimizer steps."""
        start = measure(1)
        if self.budget is None and self.keep is None and start <= 1e-6:
            raise InputError(
                "the start model's retain loss is 0 (a divergence from itself), so no budget follows from it; give budget=…"
            )
        allowed = (1 + self.tolerance) * start if self.keep is None else start - math.log(self.keep)
        budget = allowed if self.budget is None else self.budget
        warmup = round(self.warmup * steps) if self.warmup_steps is None else self.warmup_steps
        settled = replace(self, budget=budget, warmup_steps=warmup)
        settled._start = start
        settled._mean = start if self.keep is not None else None
        return settled

    def weights(self, losses: Tensor, gram: Tensor | None = None) -> Tensor:
        """(1, λ), on the losses' device; no host synchronisation."""
        value = self._value(losses.device)
        return torch.stack([torch.ones_like(value), value])

    def step(self, losses: Tensor) -> None:
        """One dual step on (L_f, L_r), or one step of warm-up."""
        if self.budget is None or self.warmup_steps is None:
            raise RuntimeError("a PrimalDual without a budget must be settled first: combine.settle(steps, measure)")
        self._steps += 1
        loss, now = losses[1].float(), self._value(losses.device)
        mean = loss if self._mean is None else self._mean + SMOOTH * (loss - self._mean)
        if self.keep is not None:
            self._mean = mean
        if self._steps > self.warmup_steps:
            if self.keep is None:
                moved = now + self.step_size * (loss - self.budget)
            else:
                over = (mean - self.budget) / -math.log(self.keep)
                moved = _moved(now, self.step_size * over.clamp(-1, 1))
            self._lambda = moved.clamp(self.min_multiplier, self.max_multiplier)

    def facts(self) -> Mapping[str, Tensor]:
        """λ."""
        return {"multiplier": self._value()}

    def watch(self, facts: Mapping[str, float]) -> str | None:
        """Warn of a budget that cannot be kept, and once of a λ that stays at 0."""
        if "multiplier" in facts:
            self._at_zero = self._at_zero + 1 if facts["multiplier"] == 0.0 else 0
            if self._at_zero == 10:
                return "λ has been 0 for 10 logged steps: the retain loss is not being trained; lower the budget"
        elif self.budget is not None and self._start is not None and self.budget < self._start:
            over = self._start - self.budget
            return (
                f"the budget {self.budget:.4g} is below the start model's retain loss {self._start:.4g}, by {over:.3g}: "
                f"infeasible from the start, so λ will only rise; give -p budget={1.1 * self._start:.4g} or more, "
                "or leave it out"
            )
        return None

    def budget_of(self, losses: Sequence[float]) -> dict[str, Any] | None:
        """The budget beside the retain loss at the start and at the end, the mean of the last quarter of ``losses``; it was
        not ``met`` where all of those, three at least, are above it.
        """
        last = losses[-max(3, len(losses) // 4) :]
        if self.budget is None or not last:
            return None
        return {
            "limit": self.budget,
            "start": self._start,
            "end": sum(last) / len(last),
            "steps": len(last),
            "multiplier": float(self._lambda),
            "max_multiplier": self.max_multiplier,
            "met": len(last) < 3 or min(last) <= self.budget,
        }

    def state_dict(self) -> dict[str, Any]:
        """λ, the step count, and the budget that was settled on."""
        return {
            "multiplier": float(self._lambda),
            "steps": self._steps,
            "budget": self.budget,
            "warmup_steps": self.warmup_steps,
        } | ({} if self._mean is None else {"mean": float(self._mean)})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """λ, the step count and the budget of a checkpoint."""
        self._lambda, self._steps = state["multiplier"], state["steps"]
        self.budget, self.warmup_steps = state["budget"], state["warmup_steps"]
        self._mean = state.get("mean")

    def _value(self, device: torch.device | None = None) -> Tensor:
        if isinstance(self._lambda, Tensor):
            return self._lambda.to(device, torch.float32)
        return torch.full((), self._lambda, dtype=torch.float32, device=device)
