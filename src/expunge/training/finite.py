"""Stop at the first loss, gradient or weight that is not finite, and go back to the last weights that gave finite ones.

Whether a step's losses and gradients are finite is found out on the device and read one step later, so that no step waits
for the device; where the log or a checkpoint waits for it anyway, it is read there.  A copy of the weights that train is
taken (in main memory, pinned where a CUDA device copies into it) before an optimizer step, and holds once that step turned
out finite: so it is of weights that were seen to work.  A small copy is taken every step, a large one every few steps.  On a
CPU nothing is late: a step that is not finite moves nothing.  Elsewhere it does, and one more may follow, so there is a copy
of the start too, and the weights always go back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InputError
from expunge.forward.family import in_parts, is_sharded, local, reshard
from expunge.forward.transfer import Arriving
from expunge.training import pieces
from expunge.training.sharded import WRAPPED

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


def read_late(device: torch.device) -> bool:
    """Whether what a step gave on ``device`` is read one step later: wherever the host would wait for it."""
    return device.type != "cpu"


def period(model: nn.Module, steps: int) -> int:
    """Every how many optimizer steps a copy of what trains in ``model`` is taken, in a run of ``steps``.

    >>> period(nn.Linear(10, 10), 50)
    1
    """
    return max(1, min(math.ceil(trained_bytes(model) / BYTES_A_STEP), steps // TIMES))


def trained_bytes(model: nn.Module) -> int:
    """What a copy of what trains in ``model`` takes."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def copy_of(model: nn.Module, step: int, into: Copy | None = None) -> Copy:
    """A copy of what trains in ``model``, in main memory: in that of the copy ``into``, if given, which is lost.

    Of a sharded model a copy of this process's shards.
    """
    reshard(model)
    held = into.weights if into else {}
    copied = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            mine, there = local(p), held.get(name)
            copied[name] = (_room(mine) if there is None else there).copy_(
                mine, non_blocking=mine.device.type == "cuda"
            )
    return Copy(step, copied)


def arrived(model: nn.Module, copy: Copy | None) -> Copy | None:
    """``copy``, once the device of ``model`` is done with writing into it."""
    if copy and next(model.parameters()).device.type == "cuda":
        torch.cuda.synchronize()
    return copy


def _room(p: Tensor) -> Tensor:
    """Main memory for a copy of ``p``, pinned where a CUDA device copies into it and there is enough of it."""
    if p.device.type != "cuda":
        return torch.empty_like(p, device="cpu")
    try:
        return torch.empty_like(p, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty_like(p, device="cpu")


def named(model: nn.Module, copy: Copy) -> Iterator[tuple[str, Tensor]]:
    """Name -> weight of ``copy``, which is of ``model``; DTensors where that is sharded."""
    reshard(model)
    for name, p in model.named_parameters():
        if name in copy.weights:
            yield name.replace(WRAPPED, ""), pieces.like(p, copy.weights[name])


def read(model: nn.Module, step: int, place: Path, name: str) -> Copy:
    """The copy, after ``step`` steps, that was written as ``name`` to ``place``; where ``model`` is sharded its shards."""
    reshard(model)
    with pieces.reading(place, name) as held:
        keys = held.names
        mine = {n: p for n, p in model.named_parameters() if n.replace(WRAPPED, "") in keys}
        return Copy(step, {n: held.read(n.replace(WRAPPED, ""), pieces.index_of(p)) for n, p in mine.items()})


@torch.no_grad()
def restore(model: nn.Module, copy: Copy) -> None:
    """Write ``copy`` into ``model``."""
    reshard(model)
    for name, p in model.named_parameters():
        if name in copy.weights:
            local(p).copy_(copy.weights[name])


@torch.no_grad()
def between(first: Copy, second: Copy, share: float) -> Copy:
    """The point that lies ``share`` of the way from ``first`` to ``second``.

    >>> between(Copy(0, {"w": torch.zeros(2)}), Copy(4, {"w": torch.ones(2)}), 0.25)
    Copy(step=4, weights={'w': tensor([0.2500, 0.2500])})
    """
    return Copy(second.step, {name: torch.lerp(first.weights[name], w, share) for name, w in second.weights.items()})


@torch.no_grad()
def largest(tensors: Iterable[Tensor], device: Any = None) -> Tensor | None:
    """The largest magnitude in each of ``tensors``, on their device or on ``device``; None where there is no number.

    >>> largest([torch.tensor([1.0, -3.0]), torch.zeros(0), torch.zeros(2)])
    tensor([3., 0.])
    """
    some = [_local(t) for t in tensors]
    some = [t for t in some if t.numel()]
    if not some:
        return None
    found = torch.stack([n.to(some[0].device) for n in torch._foreach_norm(some, math.inf)])
    return found.to(device or found.device)


def are_finite(tensors: Iterable[Tensor], device: Any = None) -> Tensor:
    """Whether all numbers in ``tensors`` are finite, as a tensor (1.0 or 0.0) on their device, or on ``device``.

    >>> are_finite([torch.ones(2), torch.zeros(0)]), are_finite([torch.tensor([1.0, float("nan")])])
    (tensor(1.), tensor(0.))
    """
    found = largest(tensors, device)
    return torch.ones((), device=device) if found is None else found.isfinite().all().float()


def first_not_finite(model: nn.Module) -> str | None:
    """The name of the first weight of ``model`` that holds a number that is not finite, None where all are.

    Of a sharded model every process looks at its shards, and all get the same answer.
    """
    reshard(model)
    named = list(model.named_parameters())
    if is_sharded(model) or in_parts(model):
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


@dataclass(frozen=True)
class PendingCheck:
    """What is found out of optimizer step ``step`` (from 0), on its way to the host: of each of ``names`` (losses, then
    the gradients) 1.0 where it is finite, and last whether any gradient is not 0; ``copy`` is of the weights that it
    started from, if one was taken.
    """

    step: int
    names: tuple[str, ...]
    flags: Arriving
    copy: Copy | None


class Watch:
    """What is known of a training run's health: ``diverged`` once it broke down, and ``good``, the last good weights.

    ``moved``: whether any step had a gradient other than 0; ``still``: how many steps up to now, in a row, had none.
    ``late``: what a step gave is read one step later, for it is computed on a device that the host need not wait for.
    """

    def __init__(self, *, late: bool = False) -> None:
        self.late = late
        self.diverged: Divergence | None = None
        self.good: Copy | None = None
        self.moved = False
        self.still = 0
        self._start: Copy | None = None
        self._pending: PendingCheck | None = None
        self._spare: Copy | None = None  # an older copy, whose memory the next one takes
        self._period: int | None = None  # of the copies, and whether one is small: known at the first step
        self._small = False

    def check(
        self,
        model: nn.Module,
        losses: Mapping[str, Tensor],
        grads: Iterable[Tensor],
        state: Any,
        everywhere: Callable[[Tensor], Tensor],
        *,
        scaled: bool = False,
    ) -> bool:
        """Whether the optimizer step of these ``losses`` and ``grads`` may be taken, as far as is known; every process gets
        the same answer.

        Now and then the weights that it starts from are copied.  ``state`` is the trainer's, ``everywhere`` makes the mean
        over all processes.  Gradients that are ``scaled`` (fp16) may overflow.
        """
        if not self.read():
            return False
        if self._period is None:
            self._period = period(model, state.max_steps)
            self._small = trained_bytes(model) <= BYTES_A_STEP
        step, values = state.global_step, torch.stack(list(losses.values()))
        sizes = largest(grads, values.device)
        sizes = values.new_ones(1) if sizes is None else sizes  # none is here to look at
        healthy = sizes.isfinite().all() | scaled
        flags = everywhere(torch.cat([values.isfinite(), healthy[None], (sizes != 0).any()[None]]).float())
        due = bool(step) and step % self._period == 0
        small = self.late and self._small
        copy = None
        if self.late and self.good is None and self._start is None:
            self._start = copy = copy_of(model, step)
        elif due and small:  # a large one would take the memory of two: it waits until the step is known to be good
            copy, self._spare = copy_of(model, step, self._spare), None
        names = (*(f"the loss {name}" for name in losses), "a gradient")
        self._pending = PendingCheck(step, names, Arriving(flags), copy if step else None)
        if self.late and (small or not due):
            return True
        if not self.read():
            return False
        if due and copy is None:
            self.good, self._start = copy_of(model, step, self.good or self._start), None
        return True

    def read(self) -> bool:
        """Wait for what is known of the last step, and say whether the run is in health."""
        pending, self._pending = self._pending, None
        if pending is None:
            return self.diverged is None
        *flags, moves = pending.flags.read()
        self.moved |= moves > 0
        self.still = 0 if moves > 0 else self.still + 1
        bad = [name for name, flag in zip(pending.names, flags, strict=True) if flag < 1]
        if bad:
            self.diverged = Divergence(pending.step + 1, bad[0])
        elif pending.copy is not None:
            self._spare = self.good or (self._start if self._start is not pending.copy else None)
            self.good, self._start = pending.copy, None
        return not bad

    def check_weights(self, model: nn.Module, step: int) -> None:
        """After ``step`` steps, the last: note a weight of ``model`` that is not finite."""
        if self.read() and (broken := first_not_finite(model)):
            self.diverged = Divergence(step, f"the weight {broken}")

    def go_back(self, model: nn.Module, step: int, what: str) -> bool:
        """Put the last good weights into ``model``, or those of the start; whether there were any besides those.

        ``what`` is not finite after ``step`` steps, if nothing else was before.
        """
        good = self.good
        self.diverged = replace(self.diverged or Divergence(step, what), good=good.step if good else None)
        if there := good or self._start:
            restore(model, there)
        self.good = self._start = self._spare = None
        return good is not None


def _local(tensor: Tensor) -> Tensor:
    shard = local(tensor)
    return shard if shard.is_floating_point() else shard.float()
