"""Stop at the first loss, gradient or weight that is not finite, and go back to the last weights that gave finite ones.

A copy of the weights that train is taken (in main memory) before an optimizer step whose losses and gradients are finite:
so the copy is of weights that were seen to work.  A small copy is taken every step, a large one every few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InputError
from expunge.forward.family import is_sharded, local, reshard

BYTES_A_STEP = 1 << 28  # copied on average, at most; the copies are at least TIMES in a run
TIMES = 10


@dataclass(frozen=True)
class Divergence:
    """What was not finite, in which optimizer step (counted from 1), and after how many the weights were good (None: never
    other than at the start).
    """

    step: int
    what: str
    good: int | None = None

    @property
    def sentence(self) -> str:
        """What a person is told, without the end of the sentence."""
        return f"training broke down at step {self.step}: {self.what} is not finite"


@dataclass(frozen=True)
class Copy:
    """The weights that train, after ``step`` optimizer steps."""

    step: int
    weights: Mapping[str, Tensor]


def period(model: nn.Module, steps: int) -> int:
    """Every how many optimizer steps a copy of what trains in ``model`` is taken, in a run of ``steps``.

    >>> period(nn.Linear(10, 10), 50)
    1
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return max(1, min(math.ceil(size / BYTES_A_STEP), steps // TIMES))


@torch.no_grad()
def copy_of(model: nn.Module, step: int) -> Copy:
    """A copy of what trains in ``model``, in main memory; of a sharded one, of this process's shards."""
    reshard(model)
    return Copy(step, {n: local(p).to("cpu", copy=True) for n, p in model.named_parameters() if p.requires_grad})


@torch.no_grad()
def restore(model: nn.Module, copy: Copy) -> None:
    """Write ``copy`` into ``model``."""
    reshard(model)
    for name, p in model.named_parameters():
        if name in copy.weights:
            local(p).copy_(copy.weights[name])


@torch.no_grad()
def are_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all numbers in ``tensors`` are finite, as a tensor (1.0 or 0.0) on their device.

    >>> are_finite([torch.ones(2), torch.zeros(0)]), are_finite([torch.tensor([1.0, float("nan")])])
    (tensor(1.), tensor(0.))
    """
    some = [_local(t) for t in tensors]
    some = [t for t in some if t.numel()]
    if not some:
        return torch.tensor(1.0)
    largest = torch.stack([n.to(some[0].device) for n in torch._foreach_norm(some, math.inf)])
    return largest.isfinite().all().float()


def first_not_finite(model: nn.Module) -> str | None:
    """The name of the first weight of ``model`` that holds a number that is not finite, None where all are.

    Of a sharded model every process looks at its shards, and all get the same answer.
    """
    reshard(model)
    named = list(model.named_parameters())
    if is_sharded(model):
        bad = torch.stack([1 - are_finite([p]).to(local(p).device) for _, p in named])
        torch.distributed.all_reduce(bad)
        return next((name for (name, _), n in zip(named, bad.tolist(), strict=True) if n), None)
    by_device: dict[Any, list[Tensor]] = {}
    for _, p in named:
        by_device.setdefault(p.device, []).append(p)
    if all(float(are_finite(some)) for some in by_device.values()):
        return None
    return next((name for name, p in named if p.numel() and not float(are_finite([p]))), None)


def check_model(model: nn.Module, name: str) -> None:
    """Raise InputError where a weight of the model called ``name`` is not finite."""
    if broken := first_not_finite(model):
        raise InputError(
            f"the model {name} is broken: its weight {broken} holds numbers that are not finite (NaN or infinity); "
            "give a model that is whole"
        )


class Watch:
    """What is known of a training run's health: ``diverged`` once it broke down, and ``good``, the last good weights."""

    def __init__(self) -> None:
        self.diverged: Divergence | None = None
        self.good: Copy | None = None

    def check(
        self,
        model: nn.Module,
        losses: Mapping[str, Tensor],
        grads: Iterable[Tensor],
        state: Any,
        everywhere: Callable[[Tensor], Tensor],
    ) -> bool:
        """Whether the optimizer step of these ``losses`` and ``grads`` may be taken; every process gets the same answer.

        Where it may, the weights that it starts from are copied, now and then.  ``state`` is the trainer's, ``everywhere``
        makes the mean over all processes.
        """
        values = torch.stack(list(losses.values()))
        flag = are_finite(grads).to(values.device) * values.isfinite().all()
        step = state.global_step
        if float(everywhere(flag)) < 1:
            bad = next((name for name, value in losses.items() if not math.isfinite(value)), None)
            self.diverged = Divergence(step + 1, f"the loss {bad}" if bad else "a gradient")
            return False
        if step and step % period(model, state.max_steps) == 0:
            self.good = copy_of(model, step)
        return True

    def check_weights(self, model: nn.Module, step: int) -> None:
        """After ``step`` steps, the last: note a weight of ``model`` that is not finite."""
        if self.diverged is None and (broken := first_not_finite(model)):
            self.diverged = Divergence(step, f"the weight {broken}")

    def go_back(self, model: nn.Module, step: int, what: str) -> bool:
        """Put the last good weights into ``model``; whether there were any besides those of the start.

        ``what`` is not finite after ``step`` steps, if nothing else was before.
        """
        good, self.good = self.good, None
        self.diverged = replace(self.diverged or Divergence(step, what), good=good.step if good else None)
        if good is not None:
            restore(model, good)
        return good is not None


def _local(tensor: Tensor) -> Tensor:
    shard = local(tensor)
    return shard if shard.is_floating_point() else shard.float()
