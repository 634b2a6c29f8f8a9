"""How much memory a forward and a backward pass take beside weights and gradients, without weights, a device or arithmetic.

A model on the ``meta`` device becomes one of fake tensors (``torch._subclasses``), whose operations give shapes and nothing
else.  The model's own code runs on them, so any architecture, attention, adapter and number format counts as it is; every
tensor that an operation makes is counted from its birth until it is freed.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Passes:
    """The most bytes that the forward and the backward pass hold, beside weights and gradients.

    ``held_inside``, ``held``: what is there at the end of the forward pass, before and after autocast lets go of its copies
    of weights.  ``traced``: they are of the model's own operations, not of a formula.
    """

    forward: float
    backward: float
    held_inside: float = 0.0
    held: float = 0.0
    traced: bool = True

    @property
    def most(self) -> float:
        """The larger of the two."""
        return max(self.forward, self.backward)


class Live(TorchDispatchMode):
    """While open, counts the bytes of tensors made: ``now``, and the ``peak``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._held: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in self._held:
                given = tree_leaves((args, kwargs))  # what is changed in place, or seen in another form, is not new
                if all(_key(t) != _key(tensor) for t in given if isinstance(t, Tensor)):
                    self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()

        def freed(_: Any) -> None:
            self.now -= size
            self._held.pop(key, None)

        self._held[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def faked(model: nn.Module, mode: FakeTensorMode, dtype: torch.dtype | None = None) -> None:
    """Put fake tensors on the CPU in the place of those of ``model``, on ``meta``; shared ones stay shared.

    ``dtype``: of all weights, if given: as FSDP2 gathers them.
    """
    made: dict[int, Tensor] = {}

    def fake(value: Tensor) -> Tensor:
        if id(value) not in made:
            cast = dtype if dtype and value.is_floating_point() and isinstance(value, nn.Parameter) else value.dtype
            tensor = FakeTensor(mode, value.detach().to("meta", cast), torch.device("cpu"))
            made[id(value)] = (
                nn.Parameter(tensor, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else tensor
            )
        return made[id(value)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    tensors[name] = fake(value)  # type: ignore[assignment]


def passes(model: nn.Module, loss: Callable[[], Tensor], autocast: Callable[[], Any]) -> Passes:
    """Bytes of ``loss()`` and of its backward pass, on the fake ``model``; its weights' gradients are there before."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    gc.collect()
    with Live() as live:
        with autocast():
            value = loss()
            inside = live.now
        forward, live.peak, held = live.peak, live.now, live.now
        if value.requires_grad:
            value.backward()
    return Passes(forward, live.peak, inside, held)


@contextmanager
def fake_mode() -> Iterator[FakeTensorMode]:
    """While open, tensors that are made are fake."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
