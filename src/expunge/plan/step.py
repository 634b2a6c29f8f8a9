"""The memory of a step's passes: each objective's own loss, traced on fake tensors over the longest rows of the data.

Decoder layers that are alike are traced two and three at a time, for each adds the same; a model whose layers differ, or
whose loss reads the activations of one of them, is traced whole.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn

from expunge import losses
from expunge.data.collate import collate
from expunge.data.example import Example
from expunge.forward import family, layers, padding
from expunge.forward.view import ForwardPass, see
from expunge.method import Activations, Method, Objective
from expunge.plan import setup, trace
from expunge.plan.trace import Passes
from expunge.training.predictions import LIKELIEST

log = logging.getLogger(__name__)

FEW = (2, 3)  # of the layers that are alike; the first may hold less, for nothing before it trains
CURVATURE = "curvature"  # of Sophia: a pass of its own


def traced(net: Any, method: Method, data: Mapping[str, Sequence[Example]], how: setup.Setup) -> dict[str, Passes]:
    """Objective -> what its passes hold beside weights and gradients, at the longest ``how.rows`` rows of its streams."""
    wanted: dict[str, Objective] = dict(method.objectives)
    if how.curvature == "gauss_newton":
        wanted[CURVATURE] = Objective(losses.nll, method.streams[:1])
    by_layer = any(isinstance(o.reference, Activations) or "layer" in bound(o) for o in wanted.values())
    depth = len(layers.decoder_layers(family.unwrap(net))[2])
    with few_layers(net, by_layer=by_layer):
        net = copy.deepcopy(net)  # on meta: of shapes
    with trace.fake_mode() as mode, disable_input_dtype_casting(net, active=how.autocast):  # as in training
        trace.faked(net, mode, dtype=torch.bfloat16 if how.sharded and how.autocast else None)
        _settle(net, how)
        found = {}
        for name, objective in wanted.items():
            batches = [_batch(data[s], how) for s in objective.on]
            loss = partial(_loss, net, objective, batches, torch.bfloat16 if how.autocast else None)
            try:
                found[name] = _over_layers(net, loss, _autocast(how), depth)
            except Exception as error:  # code of a model or a loss that asks what only numbers can answer
                log.debug("the passes of %s cannot be traced: %r", name, error)
                found[name] = by_formula(net, batches, how, depth)
    return found


def bound(objective: Objective) -> Mapping[str, Any]:
    """The parameters that are bound to an objective's loss."""
    return getattr(objective.loss, "keywords", {})


def by_formula(net: Any, batches: Sequence[Mapping[str, Any]], how: setup.Setup, depth: int) -> Passes:
    """A rough figure where nothing can be traced: what goes into and comes out of every linear layer and four hidden states
    a layer, or with checkpointing its input and one layer's; and three times the logits.
    """
    head: Any = layers.output_embedding(net)
    vocabulary, width = head.weight.shape
    each = 2 if how.autocast else 4
    stack = list(layers.decoder_layers(family.unwrap(net))[2])
    sizes = [
        4 * width + sum(m.in_features + m.out_features for m in layer.modules() if isinstance(m, nn.Linear))
        for layer in stack
    ]
    kept = depth * width + max(sizes) if how.checkpointing else sum(sizes) * depth // len(stack)
    tokens, labelled = (sum(b[name].shape[1] for b in batches) for name in ("real", "labelled"))
    total = float(each * (kept * tokens + 3 * vocabulary * labelled))
    return Passes(total, total, traced=False)


def _settle(net: Any, how: setup.Setup) -> None:
    """What a run finds out of a model by running it: right padding needs no mask, and on a CPU a prefix can be shared."""
    inner = family.unwrap(net)
    setattr(inner, padding.KEY, True)
    inner._expunge_shares_prefix = not how.gpu and family.by_position(inner)  # type: ignore[assignment]
    net.train()
    if how.checkpointing:
        net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _autocast(how: setup.Setup) -> Callable[[], AbstractContextManager[Any]]:
    return partial(torch.autocast, "cpu", torch.bfloat16) if how.autocast else nullcontext


def _batch(examples: Sequence[Example], how: setup.Setup) -> dict[str, Any]:
    rows = setup.longest(examples, how.rows)
    made = collate([{"input_ids": e.input_ids, "labels": e.labels, "index": i} for i, e in enumerate(rows)], pad_id=0)
    return made | ({"prefix": 0} if how.gpu else {})


def _loss(net: Any, objective: Objective, batches: Sequence[Mapping[str, Any]], compute: torch.dtype | None) -> Tensor:
    return objective.loss(*(_view(net, objective, batch, compute) for batch in batches))


def _view(net: Any, objective: Objective, batch: Mapping[str, Any], compute: torch.dtype | None) -> ForwardPass:
    def reference() -> ForwardPass:
        if isinstance(what := objective.reference, Activations):
            values = torch.zeros(batch["real"].shape[1], head.weight.shape[1])
            return ForwardPass.from_activations(values, what.layer, own)
        if what == "token_logp":
            return ForwardPass.from_token_logp(torch.zeros(len(own.labels)), own.labels, own.sequence, own.size)
        if what == "level":
            logp = torch.zeros(len(own.labels))
            likeliest = torch.zeros(len(own.labels), LIKELIEST, dtype=torch.long), logp[:, None].expand(-1, LIKELIEST)
            return ForwardPass.from_token_logp(logp, own.labels, own.sequence, own.size, likeliest=likeliest)
        return ForwardPass(own.labels, own.sequence, own.size, lambda _: ("logits", logits()))

    def logits() -> Tensor:
        return torch.zeros(len(own.labels), head.weight.shape[0], dtype=compute or head.weight.dtype)

    head: Any = layers.output_embedding(net)
    own = see(net, batch, positions=objective.positions, reference=reference if objective.reference else None)
    return own


def few_layers(net: Any, *, by_layer: bool) -> AbstractContextManager[Any]:
    """While open, ``net`` has three layers only, if they are alike and no loss reads one of them (``by_layer``)."""
    stack = list(layers.decoder_layers(family.unwrap(net))[2])
    cut = len(stack) > FEW[1] and alike(stack) and not by_layer
    return layers.up_to(family.unwrap(net), FEW[1] - 1) if cut else nullcontext()


def _over_layers(
    net: Any, loss: Callable[[], Tensor], autocast: Callable[[], AbstractContextManager[Any]], depth: int
) -> Passes:
    """The passes of a model of ``depth`` layers, of which ``net`` has three or all."""
    stack = list(layers.decoder_layers(family.unwrap(net))[2])
    if len(stack) == depth:
        return trace.passes(net, loss, autocast)
    found = []
    for few in FEW:
        with layers.up_to(family.unwrap(net), few - 1):
            found.append(trace.passes(net, loss, autocast))
    two, three = found
    more = depth - FEW[1]
    return Passes(
        three.forward + more * (three.held_inside - two.held_inside), three.backward + more * (three.held - two.held)
    )


def alike(stack: Sequence[nn.Module]) -> bool:
    """Whether all ``stack`` have weights of the same names, shapes and formats, of which the same train."""

    def form(layer: nn.Module) -> Any:
        return type(layer), [(n, p.shape, p.dtype, p.requires_grad) for n, p in layer.named_parameters()]

    return all(form(layer) == form(stack[0]) for layer in stack[1:])
