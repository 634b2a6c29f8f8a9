"""What the frozen target says of the rows that training will see, taken in one pass before the first step.

Token log-probabilities are constant through training, and so are the hidden states that the head turns into logits and the
activations after a layer.  They are held in main memory, whatever the model is on; the rows of a batch go to a CUDA device
from pinned memory, while it computes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from expunge.data.collate import labelled_tokens
from expunge.forward.family import is_sharded, kind, reshard, unwrap, whole
from expunge.forward.layers import hidden_after, output_embedding
from expunge.forward.transfer import Arriving, to_device
from expunge.forward.view import ForwardPass, hidden_at, see
from expunge.training.predictions import AS_IT_IS, Calibration, predictions, unpacked

Batches = Callable[[str], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class CachedLogp:
    """Token log-probabilities of rows of some streams: ``rows[stream][i]`` is (|y_i|,)."""

    rows: Mapping[str, Mapping[int, Tensor]]

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """The reference's view of ``batch``, aligned with the model's own."""
        values = _rows(self.rows[stream], batch, own.labels.device)
        return ForwardPass.from_token_logp(values, own.labels, own.sequence, own.size)


@dataclass(frozen=True)
class CachedLevel:
    """Levels of the tokens of some rows, without a model: ``rows[stream][i]`` is (|y_i|, 2), the log-probability of each
    labelled token and the entropy of its prediction.  ``uncertainty``: half of the 90 % interval of the mean of the first,
    in nats a token."""

    rows: Mapping[str, Mapping[int, Tensor]]
    uncertainty: float | None = None

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """That of ``batch``, aligned with the model's own view."""
        logp, entropy = _rows(self.rows[stream], batch, own.labels.device).unbind(-1)
        return ForwardPass.from_token_logp(logp, own.labels, own.sequence, own.size, entropy=entropy)


@dataclass(frozen=True)
class CachedPredictions:
    """What a model that never saw the rows predicts in them: ``rows[stream][i]`` is (|y_i|, 1 + 2K), see
    :mod:`expunge.training.predictions`; ``calibration``: how that model's predictions were changed; ``uncertainty``: half of
    the 90 % interval of the mean log-probability of the labelled tokens, nats a token; ``in_context``: whether that model
    read rows to keep before each row.
    """

    rows: Mapping[str, Mapping[int, Tensor]]
    calibration: Calibration = AS_IT_IS
    uncertainty: float | None = None
    in_context: bool = False

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """That model's view of ``batch``, aligned with the own model's."""
        logp, likeliest = unpacked(_rows(self.rows[stream], batch, own.labels.device))
        return ForwardPass.from_token_logp(logp, own.labels, own.sequence, own.size, likeliest=likeliest)


@dataclass(frozen=True)
class CachedHidden:
    """Final hidden states at the labelled tokens: ``rows[stream][i]`` is (|y_i|, D), and the target's ``head``."""

    rows: Mapping[str, Mapping[int, Tensor]]
    head: nn.Module

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """The reference's view of ``batch``: one product with the head, without gradient."""
        hidden = _rows(self.rows[stream], batch, own.labels.device)

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
        return ForwardPass.from_activations(_rows(self.rows[stream], batch, own.labels.device), self.layer, own)


def held_bytes(rows: Mapping[str, Mapping[int, Tensor]]) -> int:
    """The bytes of what is cached in ``rows``."""
    return sum(row.numel() * row.element_size() for of_stream in rows.values() for row in of_stream.values())


def numbers(batch: Mapping[str, Any]) -> list[int]:
    """The numbers of the rows of ``batch``; a collator of one's own may give a tensor of them."""
    return [int(i) for i in batch["index"]]


def _rows(rows: Mapping[int, Tensor], batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """What is cached of the rows of ``batch``, one after the other, on ``device``."""
    wanted = numbers(batch)
    if missing := [i for i in wanted if i not in rows]:
        raise RuntimeError(
            f"row {missing[0]} was not cached: the run sees more rows than its arguments said when it was built"
        )
    parts = [rows[i] for i in wanted]
    if device.type != "cuda":
        return to_device(torch.cat(parts), device)
    size = (sum(len(p) for p in parts), *parts[0].shape[1:])
    return torch.cat(parts, out=torch.empty(size, dtype=parts[0].dtype, pin_memory=True)).to(device, non_blocking=True)


@torch.no_grad()
def cache_logp(model: nn.Module, streams: Sequence[str], batches: Batches) -> CachedLogp:
    """Run the target model once over ``streams`` for the log-probabilities of their labelled tokens.

    ``batches(stream)`` yields collated batches with ``index``; the model's adapter, if any, is off meanwhile.
    """

    def logp(batch: Mapping[str, Any]) -> Tensor:
        return see(unwrap(model), batch, grad=False).token_logp

    with as_target(model):
        return CachedLogp({s: _collect(batches(s), logp) for s in streams})


@torch.no_grad()
def cache_level(model: nn.Module, streams: Sequence[str], batches: Batches) -> CachedPredictions:
    """What ``model``, one that never saw the rows, predicts in them; without dropout, with its adapter if it has one."""
    training = model.training
    model.eval()
    rows = {s: _collect(batches(s), lambda batch: predictions(model, batch)) for s in streams}
    model.train(training)
    return CachedPredictions(rows)


@torch.no_grad()
def cache_activations(model: nn.Module, streams: Sequence[str], batches: Batches, layer: int) -> CachedActivations:
    """The same for activations after ``layer`` at the real tokens."""

    def hidden(batch: Mapping[str, Any]) -> Tensor:
        return hidden_after(unwrap(model), batch, layer)

    with as_target(model):
        return CachedActivations({s: _collect(batches(s), hidden, _real) for s in streams}, layer)


@torch.no_grad()
def cache_hidden(model: nn.Module, streams: Sequence[str], batches: Batches) -> CachedHidden | None:
    """The same for hidden states; None where they and the head do not give the model's logits."""
    head = output_embedding(model)
    reshard(model)
    if kind(head) is not nn.Linear:  # an adapter on the head is off in the target, but not in the head by itself
        return None

    def hidden(batch: Mapping[str, Any]) -> Tensor:
        found = hidden_at(unwrap(model), batch)
        if found is None:
            raise _WorksOnLogits
        return found

    try:
        with as_target(model):
            rows = {s: _collect(batches(s), hidden) for s in streams}
    except _WorksOnLogits:
        return None
    return CachedHidden(rows, _frozen_head(cast(nn.Linear, head), sharded=is_sharded(model)))


def _frozen_head(head: nn.Module, *, sharded: bool) -> nn.Module:
    """``head`` as it is now; a copy where it moves, and a whole one of a sharded model's, which cannot run alone."""
    if sharded:
        linear = cast(nn.Linear, head)
        with torch.device("meta"):
            made = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
        for name, p in head.named_parameters():
            setattr(made, name, nn.Parameter(whole(p.detach()).clone(), requires_grad=False))
        return made
    moves = any(p.requires_grad for p in head.parameters())
    return copy.deepcopy(head).requires_grad_(False) if moves else head


def hidden_bytes(model: nn.Module, tokens: int) -> int:
    """What :func:`cache_hidden` or :func:`cache_activations` would take."""
    weight = cast(Tensor, output_embedding(model).weight)
    return tokens * weight.shape[1] * weight.element_size()


class _WorksOnLogits(Exception):
    """The model does something to what its head returns."""


def adapter_off(model: nn.Module) -> AbstractContextManager[Any]:
    """While open, a PEFT model is its base; nothing for any other model."""
    inner = unwrap(model)
    return inner.disable_adapter() if has_adapter(inner) else nullcontext()  # type: ignore[operator]


def has_adapter(model: nn.Module) -> bool:
    """Whether ``model`` carries a PEFT adapter that can be switched off."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")


@contextmanager
def as_target(model: nn.Module) -> Iterator[None]:
    """While open, ``model`` is the target: its adapter off, no dropout."""
    training = model.training
    model.eval()
    with adapter_off(model):
        yield
    model.train(training)


def _real(batch: Mapping[str, Any]) -> list[int]:
    return list(batch["attention_mask"].sum(1).tolist())


def _collect(
    batches: Iterable[Mapping[str, Any]],
    f: Callable[[Mapping[str, Any]], Tensor],
    lengths: Callable[[Mapping[str, Any]], Sequence[int]] = labelled_tokens,
) -> dict[int, Tensor]:
    """``f(batch)``, one entry a token, cut into rows of ``lengths(batch)`` by ``index``; in main memory.

    A batch is on its way there while the next one is computed.
    """
    found: dict[int, Tensor] = {}

    def store(batch: Mapping[str, Any], made: Arriving) -> None:
        found.update(zip(numbers(batch), made.tensor().split(lengths(batch)), strict=True))

    before: tuple[Mapping[str, Any], Arriving] | None = None
    for batch in batches:
        arriving = Arriving(f(batch))
        if before is not None:
            store(*before)
        before = (batch, arriving)
    if before is not None:
        store(*before)
    return found
