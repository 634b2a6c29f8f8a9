"""The frozen reference π_ref, in the cheapest form that an objective's loss can use.

One pass of the target model (:mod:`expunge.training.cached`) before the first step, over the rows that training will see,
replaces the reference model.  Where hidden states would take more memory than the model, or do not give its logits, the
reference is the model with its adapter switched off under LoRA, a frozen copy otherwise.  Activations at a layer are kept
likewise, and a copy for them holds no layer above.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from expunge import method
from expunge.data.example import Example
from expunge.errors import InputError
from expunge.forward import layers
from expunge.forward.family import unwrap
from expunge.forward.layers import hidden_after
from expunge.forward.view import IGNORE, ForwardPass, see
from expunge.method import Activations, Objective
from expunge.training.cached import (
    Batches,
    CachedActivations,
    CachedHidden,
    CachedLevel,
    CachedLogp,
    CachedPredictions,
    as_target,
    cache_activations,
    cache_hidden,
    cache_level,
    cache_logp,
    has_adapter,
    held_bytes,
    hidden_bytes,
)
from expunge.training.sharded import Shards, placed

# loads a model that never saw the forget rows; or what one predicts in them; or what is known of their tokens without one
Level = Callable[[], nn.Module] | CachedPredictions | CachedLevel


@dataclass(frozen=True)
class Reference:
    """What the objectives read of the frozen target.

    ``logp``, ``hidden`` and ``activations`` are caches of the rows that training sees; ``copy`` is a frozen model in place
    of the last two.  Where a loss reads what is in none of them, the model with its adapter off is the target.  ``level``:
    a cache of another model's predictions, one that never saw the forget rows.
    """

    logp: CachedLogp | None = None
    hidden: CachedHidden | None = None
    activations: CachedActivations | None = None
    copy: nn.Module | None = None
    level: CachedPredictions | CachedLevel | None = None

    @property
    def described(self) -> dict[str, Any]:
        """What a record says of it: the bytes of each cache, all in main memory, and whether there is a frozen copy."""
        caches = {"token_logp": self.logp, "hidden": self.hidden, "activations": self.activations, "level": self.level}
        held = {name: held_bytes(cache.rows) for name, cache in caches.items() if cache is not None}
        return ({"cached_bytes": held, "cached_in": "main memory"} if held else {}) | (
            {"frozen_copy": True} if self.copy is not None else {}
        )

    def view(
        self, model: nn.Module, stream: str, batch: Mapping[str, Tensor], objective: Objective, own: ForwardPass
    ) -> ForwardPass:
        """The target's view of ``batch`` as ``objective`` reads it, aligned with the model's ``own``."""
        if objective.reference == "token_logp":
            assert self.logp is not None
            return self.logp.view(stream, batch, own)
        if objective.reference == "level":
            assert self.level is not None
            return self.level.view(stream, batch, own)
        if isinstance(objective.reference, Activations):
            if self.activations is not None:
                return self.activations.view(stream, batch, own)
            return live_activations(model, self.copy, batch, objective.reference.layer, own)
        if self.hidden is not None:
            return self.hidden.view(stream, batch, own)
        return live_view(model, self.copy, batch, objective)


def build(
    model: nn.Module,
    objectives: Mapping[str, Objective],
    rows: Callable[[str], Iterable[Example]],
    batches: Batches,
    autocast: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
    shards: Shards | None = None,
    level: Level | None = None,
) -> Reference:
    """The reference of ``model`` as it is now, in the form that costs least; nothing where no objective reads it.

    ``rows(stream)`` are those that training will see, ``batches(stream)`` the same in collated batches with ``index``.
    ``shards``: of a model that is sharded, of which a copy is sharded too.  ``level()``: loads a model that never saw the
    forget rows, which is let go after one pass; or what such a model says of them.

    Raises InputError where an objective reads that one and there is none.
    """
    built = Reference()
    if not any(o.reference for o in objectives.values()):
        return built
    if streams := reading(objectives, "level"):
        if level is None:
            raise InputError("the method ends at the level of a model that never saw the rows; give one as level")
        with autocast():
            held = cache_level(level().to(device), streams, batches) if callable(level) else level
        built = replace(built, level=held)
    placed(model, device)
    if streams := reading(objectives, "token_logp"):
        with autocast():
            built = replace(built, logp=cache_logp(model, streams, batches))
    if what := layer_read(objectives):
        streams = reading(objectives, what)
        if hidden_bytes(model, sum(len(r.input_ids) for s in streams for r in rows(s))) < size(model):
            with autocast():
                built = replace(built, activations=cache_activations(model, streams, batches, what.layer))
        elif not has_adapter(unwrap(model)):
            built = replace(built, copy=shards.frozen_copy() if shards else frozen_copy_up_to(model, what.layer))
    if not (streams := reading(objectives, "logits")):
        return built
    plain = all(o.positions == "answer" for o in objectives.values() if o.reference == "logits")
    tokens = sum(sum(y != IGNORE for y in r.labels[1:]) for s in streams for r in rows(s))
    if plain and hidden_bytes(model, tokens) < size(model):
        with autocast():
            built = replace(built, hidden=cache_hidden(model, streams, batches))
    if built.hidden is None and not has_adapter(unwrap(model)):
        built = replace(built, copy=shards.frozen_copy() if shards else frozen_copy(model))
    return built


def size(model: nn.Module) -> int:
    """The bytes of the model's parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that neither trains nor drops out."""
    return copy.deepcopy(unwrap(model)).eval().requires_grad_(False)


def frozen_copy_up_to(model: nn.Module, layer: int) -> nn.Module:
    """The same without the decoder layers above ``layer``."""
    with layers.up_to(unwrap(model), layer):
        return frozen_copy(model)


def live_view(
    model: nn.Module, copy_of_target: nn.Module | None, batch: Mapping[str, Tensor], objective: Objective
) -> ForwardPass:
    """The view of ``batch`` under the frozen copy, or under the model with its adapter off; without gradient."""
    if copy_of_target is not None:
        view = see(copy_of_target, batch, positions=objective.positions, grad=False)
        view.logits  # noqa: B018  run now, inside the caller's autocast
        return view
    with as_target(model), torch.no_grad():
        view = see(unwrap(model), batch, positions=objective.positions, grad=False)
        view.logits  # noqa: B018  run now, while the adapter is off
    return view


def live_activations(
    model: nn.Module, copy_of_target: nn.Module | None, batch: Mapping[str, Tensor], layer: int, own: ForwardPass
) -> ForwardPass:
    """The activations of ``batch`` under the frozen copy, or under the model with its adapter off; without gradient."""
    if copy_of_target is not None:
        with torch.no_grad():
            return ForwardPass.from_activations(hidden_after(copy_of_target, batch, layer), layer, own)
    with as_target(model), torch.no_grad():
        return ForwardPass.from_activations(hidden_after(unwrap(model), batch, layer), layer, own)


def layer_read(objectives: Mapping[str, Objective]) -> Activations | None:
    """The layer whose activations some loss reads of the reference."""
    found = {o.reference for o in objectives.values() if isinstance(o.reference, Activations)}
    if len(found) > 1:
        raise ValueError(
            f"the objectives read the reference at layers {sorted(f.layer for f in found)}; one is possible"
        )
    return next(iter(found), None)


def reading(objectives: Mapping[str, Objective], what: method.Reference) -> list[str]:
    """The streams whose reference ``what`` some loss reads."""
    return list(dict.fromkeys(s for o in objectives.values() if o.reference == what for s in o.on))
