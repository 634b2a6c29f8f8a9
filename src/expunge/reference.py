"""The frozen reference π_ref, in the cheapest form that an objective's loss can use.

``token_logp`` is constant through training, so one pass of the target model over the rows, before the first step,
replaces the reference model.  ``logits`` needs the model itself: the adapter switched off under LoRA, a frozen copy
otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.forward import ForwardPass, see, unwrap
from expunge.method import Objective

Views = Callable[[nn.Module, Mapping[str, Tensor], Objective], ForwardPass]


@dataclass(frozen=True)
class CachedLogp:
    """Token log-probabilities of every row of some streams: ``rows[stream][i]`` is (|y_i|,)."""

    rows: Mapping[str, list[Tensor]]

    def view(self, stream: str, batch: Mapping[str, Tensor], own: ForwardPass) -> ForwardPass:
        """The reference's view of ``batch``, aligned with the model's own."""
        values = torch.cat([self.rows[stream][i] for i in batch["index"].tolist()])
        return ForwardPass.from_token_logp(values.to(own.labels.device), own.labels, own.sequence, own.size)


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that neither trains nor drops out."""
    return copy.deepcopy(unwrap(model)).eval().requires_grad_(False)


def adapter_off(model: nn.Module) -> AbstractContextManager[Any]:
    """While open, a PEFT model is its base; nothing for any other model."""
    inner = unwrap(model)
    return inner.disable_adapter() if _has_adapter(inner) else nullcontext()  # type: ignore[operator]


def _has_adapter(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")


def needs_copy(model: nn.Module, objectives: Mapping[str, Objective]) -> bool:
    """Whether some loss reads reference logits and no adapter can be switched off to give them."""
    return any(o.reference == "logits" for o in objectives.values()) and not _has_adapter(unwrap(model))


def live_view(
    model: nn.Module, copy_of_target: nn.Module | None, batch: Mapping[str, Tensor], objective: Objective
) -> ForwardPass:
    """The view of ``batch`` under the frozen copy, or under the model with its adapter off; without gradient."""
    if copy_of_target is not None:
        view = see(copy_of_target, batch, positions=objective.positions, grad=False)
        view.logits  # noqa: B018  run now, inside the caller's autocast
        return view
    training = model.training
    model.eval()  # the reference does not drop out
    with adapter_off(model), torch.no_grad():
        view = see(unwrap(model), batch, positions=objective.positions, grad=False)
        view.logits  # noqa: B018  run now, while the adapter is off
    model.train(training)
    return view


@torch.no_grad()
def cache_logp(
    model: nn.Module,
    streams: Mapping[str, list[Any]],
    objectives: Mapping[str, Objective],
    batches: Callable[[str], Any],
) -> CachedLogp:
    """Run the target model once over every stream whose reference log-probabilities a loss reads.

    ``batches(stream)`` yields collated batches with ``index``; the model's adapter, if any, is off meanwhile.
    """
    wanted = dict.fromkeys(s for o in objectives.values() if o.reference == "token_logp" for s in o.on)
    rows: dict[str, list[Tensor]] = {}
    was_training = model.training
    model.eval()
    with adapter_off(model):
        for stream in wanted:
            found: dict[int, Tensor] = {}
            for batch in batches(stream):
                x = see(unwrap(model), batch, grad=False)
                parts = x.token_logp.cpu().split(x.lengths.tolist())
                found.update(zip(batch["index"].tolist(), parts, strict=True))
            rows[stream] = [found[i] for i in range(len(streams[stream]))]
    model.train(was_training)
    return CachedLogp(rows)
