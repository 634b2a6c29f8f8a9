"""The frozen reference π_ref, in the cheapest form that an objective's loss can use.

Token log-probabilities are constant through training, and so are the hidden states that the head turns into logits: one
pass of the target model, before the first step and over the rows that training will see, replaces the reference
model.  Where hidden states would take more memory than the model, or do not give its logits, the reference is the
model with its adapter switched off under LoRA, a frozen copy otherwise.  Activations at a layer are kept likewise, and
a copy for them holds no layer above.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from expunge.forward import layers
from expunge.forward.view import IGNORE, ForwardPass, hidden_after, hidden_at, output_embedding, see, unwrap
from expunge.method import Activations, Objective, Reference

Batches = Callable[[str], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class CachedLogp:
    """Token log-probabilities of rows of some streams: ``rows[stream][i]`` is (|y_i|,)."""

    rows: Mapping[str, Mapping[int, Tensor]]

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """The reference's view of ``batch``, aligned with the model's own."""
        values = torch.cat([_row(self.rows[stream], i) for i in batch["index"].tolist()])
        return ForwardPass.from_token_logp(values.to(own.labels.device), own.labels, own.sequence, own.size)


@dataclass(frozen=True)
class CachedHidden:
    """Final hidden states at the labelled tokens: ``rows[stream][i]`` is (|y_i|, D), and the target's ``head``."""

    rows: Mapping[str, Mapping[int, Tensor]]
    head: nn.Module

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """The reference's view of ``batch``: one product with the head, without gradient."""
        hidden = torch.cat([_row(self.rows[stream], i) for i in batch["index"].tolist()]).to(own.labels.device)

        def run(_: Any) -> tuple[Any, Tensor]:
            with torch.no_grad():
                return "logits", self.head(hidden)

        return ForwardPass(own.labels, own.sequence, own.size, run)


@dataclass(frozen=True)
class CachedActivations:
    """Activations after one decoder layer at the real tokens: ``rows[stream][i]`` is (|x_i|, D)."""

    rows: Mapping[str, Mapping[int, Tensor]]
    layer: int

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """The reference's view of ``batch``: its activations at this layer and nothing else."""
        values = torch.cat([_row(self.rows[stream], i) for i in batch["index"].tolist()])
        return ForwardPass.from_activations(values.to(own.labels.device), self.layer, own)


def _row(rows: Mapping[int, Tensor], i: int) -> Tensor:
    if i not in rows:
        raise RuntimeError(f"row {i} was not cached: the run sees more rows than its arguments said when it was built")
    return rows[i]


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that neither trains nor drops out."""
    return copy.deepcopy(unwrap(model)).eval().requires_grad_(False)


def frozen_copy_up_to(model: nn.Module, layer: int) -> nn.Module:
    """The same without the decoder layers above ``layer``."""
    with layers.up_to(unwrap(model), layer):
        return frozen_copy(model)


def adapter_off(model: nn.Module) -> AbstractContextManager[Any]:
    """While open, a PEFT model is its base; nothing for any other model."""
    inner = unwrap(model)
    return inner.disable_adapter() if has_adapter(inner) else nullcontext()  # type: ignore[operator]


def has_adapter(model: nn.Module) -> bool:
    """Whether ``model`` carries a PEFT adapter that can be switched off."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")


def live_view(
    model: nn.Module, copy_of_target: nn.Module | None, batch: Mapping[str, Tensor], objective: Objective
) -> ForwardPass:
    """The view of ``batch`` under the frozen copy, or under the model with its adapter off; without gradient."""
    if copy_of_target is not None:
        view = see(copy_of_target, batch, positions=objective.positions, grad=False)
        view.logits  # noqa: B018  run now, inside the caller's autocast
        return view
    with _as_target(model), torch.no_grad():
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
    with _as_target(model), torch.no_grad():
        return ForwardPass.from_activations(hidden_after(unwrap(model), batch, layer), layer, own)


def layer_read(objectives: Mapping[str, Objective]) -> Activations | None:
    """The layer whose activations some loss reads of the reference."""
    found = {o.reference for o in objectives.values() if isinstance(o.reference, Activations)}
    if len(found) > 1:
        raise ValueError(
            f"the objectives read the reference at layers {sorted(f.layer for f in found)}; one is possible"
        )
    return next(iter(found), None)


def reading(objectives: Mapping[str, Objective], what: Reference) -> list[str]:
    """The streams whose reference ``what`` some loss reads."""
    return list(dict.fromkeys(s for o in objectives.values() if o.reference == what for s in o.on))


@torch.no_grad()
def cache_logp(model: nn.Module, streams: Sequence[str], batches: Batches) -> CachedLogp:
    """Run the target model once over ``streams`` for the log-probabilities of their labelled tokens.

    ``batches(stream)`` yields collated batches with ``index``; the model's adapter, if any, is off meanwhile.
    """

    def logp(batch: Mapping[str, Any]) -> Tensor:
        return see(unwrap(model), batch, grad=False).token_logp

    with _as_target(model):
        return CachedLogp({s: _collect(batches(s), logp) for s in streams})


@torch.no_grad()
def cache_activations(model: nn.Module, streams: Sequence[str], batches: Batches, layer: int) -> CachedActivations:
    """The same for activations after ``layer`` at the real tokens."""

    def hidden(batch: Mapping[str, Any]) -> Tensor:
        return hidden_after(unwrap(model), batch, layer)

    with _as_target(model):
        return CachedActivations({s: _collect(batches(s), hidden, _real) for s in streams}, layer)


@torch.no_grad()
def cache_hidden(model: nn.Module, streams: Sequence[str], batches: Batches) -> CachedHidden | None:
    """The same for hidden states; None where they and the head do not give the model's logits."""
    head = output_embedding(model)
    if type(head) is not nn.Linear:  # an adapter on the head is off in the target, but not in the head by itself
        return None

    def hidden(batch: Mapping[str, Any]) -> Tensor:
        found = hidden_at(unwrap(model), batch)
        if found is None:
            raise _WorksOnLogits
        return found

    try:
        with _as_target(model):
            rows = {s: _collect(batches(s), hidden) for s in streams}
    except _WorksOnLogits:
        return None
    moves = any(p.requires_grad for p in head.parameters())
    return CachedHidden(rows, copy.deepcopy(head).requires_grad_(False) if moves else head)


def hidden_bytes(model: nn.Module, tokens: int) -> int:
    """What :func:`cache_hidden` or :func:`cache_activations` would take."""
    weight = cast(Tensor, output_embedding(model).weight)
    return tokens * weight.shape[1] * weight.element_size()


class _WorksOnLogits(Exception):
    """The model does something to what its head returns."""


@contextmanager
def _as_target(model: nn.Module) -> Iterator[None]:
    """While open, ``model`` is the target: its adapter off, no dropout."""
    training = model.training
    model.eval()
    with adapter_off(model):
        yield
    model.train(training)


def _labelled(batch: Mapping[str, Any]) -> list[int]:
    return (batch["labels"][:, 1:] != IGNORE).sum(1).tolist()


def _real(batch: Mapping[str, Any]) -> list[int]:
    return batch["attention_mask"].sum(1).tolist()


def _collect(
    batches: Iterable[Mapping[str, Any]],
    f: Callable[[Mapping[str, Any]], Tensor],
    lengths: Callable[[Mapping[str, Any]], list[int]] = _labelled,
) -> dict[int, Tensor]:
    """``f(batch)``, one entry a token, cut into rows of ``lengths(batch)`` by ``index``."""
    found: dict[int, Tensor] = {}
    for batch in batches:
        found.update(zip(batch["index"].tolist(), f(batch).cpu().split(lengths(batch)), strict=True))
    return found
