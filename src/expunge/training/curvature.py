"""Sophia's curvature in training: what the trainer does besides its gradient at every k-th optimizer step.

An estimate is made on all micro-batches of the step, on all ranks, before the weights move, so cutting the step up
changes nothing.  The labels and probes it draws follow from the seed, the step and the row, so a resumed run draws
the same and a checkpoint need not hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from expunge.combine import Combiner
from expunge.errors import InputError
from expunge.forward import kernels
from expunge.forward.transfer import to_device
from expunge.forward.view import ForwardPass, see
from expunge.sophia import (
    Settings,
    Sophia,
    displaced,
    gauss_newton_bartlett,
    generator,
    sample_labels,
    signs,
    squared_gradient,
)
from expunge.training.cached import numbers

ROUNDED = (
    "curvature=hutchinson takes differences of gradients, which 16-bit numbers round away; "
    "train in fp32, or use curvature=gauss_newton"
)


@dataclass(frozen=True)
class Hooks:
    """What the estimators use of the training that they are part of.

    ``streams`` and ``objectives``: the names of what the method reads and minimises; ``loss(name, model, inputs)`` is one
    objective; ``weights()`` are theirs, where they are fixed; ``autocast`` and ``backward`` are the trainer's; ``log(key,
    value)`` puts a number into the step's log line.  ``seed`` and ``processes`` are the run's.
    """

    streams: Sequence[str]
    objectives: Sequence[str]
    loss: Callable[[str, nn.Module, Mapping[str, Any]], Tensor]
    weights: Callable[[], Tensor]
    autocast: Callable[[], AbstractContextManager[Any]]
    backward: Callable[[Tensor], None]
    log: Callable[[str, Tensor], None]
    seed: int
    processes: int


class Curvature(TrainerCallback):
    """Feeds the optimizer :class:`~expunge.sophia.Sophia`; ``observe`` is called once a micro-batch.

    ``gauss_newton``: labels are sampled at every labelled token of every stream the method reads, and each token weighs
    the same.  That is the curvature of what the model says about the rows of the step, whatever the objectives make of it
    and however they are weighed: forget losses have no useful curvature of their own (ascent's is negative), and a
    combiner's weights stand only after the gradients.  One more forward and backward of each stream.  A row that is in a
    step r times (a retain set smaller than the step) gets the same labels each time, and so r times its curvature.

    ``hutchinson``: the Hessian of the objectives' weighted sum, as it is minimised; the combiner must have fixed
    weights.  Two more forward and backward passes of each objective, a copy of the trainable weights and a probe.

    ``squared_gradient``: of the step's gradient as the optimizer gets it, combined and clipped; costs nothing.
    """

    def __init__(self, settings: Settings, hooks: Hooks):
        self.settings = settings
        self.hooks = hooks
        self._gradient: dict[Tensor, Tensor] = {}  # of the step so far: ĝ or H u
        self._probes: dict[Tensor, Tensor] = {}
        self._tokens: Tensor | float = 0.0  # B, of the whole step

    def due(self, step: int) -> bool:
        """Whether the curvature is estimated at optimizer step ``step`` (from 0)."""
        return step % self.settings.every == 0

    # -- once a micro-batch -------------------------------------------------------------------------------------------------
    def observe(self, model: nn.Module, inputs: Mapping[str, Any], step: int, parts: int) -> None:
        """Add what the micro-batch ``inputs``, one of ``parts`` of optimizer step ``step``, tells of the curvature.

        The step's own gradients stay as they are.
        """
        if not self.due(step) or self.settings.curvature == "squared_gradient":
            return
        params = [p for p in model.parameters() if p.requires_grad]
        with self._apart(params):
            if self.settings.curvature == "gauss_newton":
                self._sampled(model, inputs, step, parts)
            else:
                self._displaced(model, inputs, step, parts, params)

    @contextmanager
    def _apart(self, params: list[nn.Parameter]) -> Iterator[None]:
        """While open, ``p.grad`` is this object's own sum."""
        own = [p.grad for p in params]
        for p in params:
            p.grad = self._gradient.get(p)
        try:
            yield
        finally:
            self._gradient = {p: p.grad for p in params if p.grad is not None}
            for p, g in zip(params, own, strict=True):
                p.grad = g

    def _sampled(self, model: nn.Module, inputs: Mapping[str, Any], step: int, parts: int) -> None:
        hooks, counts = self.hooks, inputs["counts"]
        tokens = torch.stack([counts[s]["token_count"] for s in hooks.streams]).sum()  # mean per micro-batch
        self._tokens = tokens * parts * hooks.processes
        for stream in hooks.streams:
            with hooks.autocast():
                view = see(model, inputs[stream])
                chance = uniform(view, inputs[stream], hooks.seed, step, stream)
                labels = sample_labels(view.logits.detach(), chance)
                loss = -kernels.token_logp(view.logits, labels).sum() / (tokens * parts)
            hooks.backward(loss * 0 if "filler" in inputs[stream] else loss)

    def _displaced(
        self, model: nn.Module, inputs: Mapping[str, Any], step: int, parts: int, params: list[nn.Parameter]
    ) -> None:
        hooks = self.hooks
        if not self._probes:
            self._probes = dict(zip(params, signs(params, hooks.seed, step, "probe"), strict=True))
        weights = hooks.weights()
        share = 1 / parts
        device = params[0].device
        for factor in displaced(params, [self._probes[p] for p in params], self.settings.radius):
            # both places see the same dropout
            with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type=device.type):
                for name, weight in zip(hooks.objectives, weights, strict=True):
                    with hooks.autocast():
                        loss = hooks.loss(name, model, inputs)
                    hooks.backward(factor * share * weight * loss)

    def forget(self) -> None:
        """Begin the step again."""
        self._gradient, self._probes = {}, {}

    # -- once an optimizer step -------------------------------------------------------------------------------------------
    def average(self, mean: Callable[[list[Tensor | None]], list[Tensor | None]], params: Sequence[Tensor]) -> None:
        """Of several processes that each made an estimate take the ``mean``; ``params`` are those that train."""
        found = mean([self._gradient.get(p) for p in params])
        self._gradient = {p: g for p, g in zip(params, found, strict=True) if g is not None}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """The gradient is whole and clipped, the weights have not moved: the optimizer takes the estimate."""
        if not self.due(state.global_step):
            return
        sophia = inner(optimizer)
        if self.settings.curvature == "squared_gradient":
            moving = [p for group in sophia.param_groups for p in group["params"] if p.grad is not None]
            estimates = {p: squared_gradient(p.grad) for p in moving}
        elif self.settings.curvature == "gauss_newton":
            estimates = {p: gauss_newton_bartlett(g, self._tokens) for p, g in self._gradient.items()}
        else:
            estimates = {p: self._probes[p] * g for p, g in self._gradient.items()}
        sophia.update_curvature(estimates)
        self._gradient, self._probes = {}, {}

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """The log says how much of the step was clipped, at the steps whose curvature was estimated."""
        if self.due(state.global_step):
            self.hooks.log("clipped", inner(optimizer).clipped())


def check(settings: Settings, combine: Combiner, args: Any) -> None:
    """Refuse what can be refused before a model is loaded: a combiner or a number format that the estimator cannot use."""
    if args.fp16:
        raise InputError("Sophia's curvature does not go with fp16's scaled losses; use bf16=true, or neither")
    if settings.curvature == "hutchinson" and combine.needs_gram:
        raise InputError(
            f"curvature=hutchinson needs one loss, and the weights of {type(combine).__name__} follow the gradients; "
            "use curvature=gauss_newton"
        )
    if settings.curvature == "hutchinson" and args.bf16:
        raise InputError(ROUNDED)


def check_model(settings: Settings, accelerator: str, parameters: Iterable[nn.Parameter]) -> None:
    """Refuse what the model and the kind of accelerator rule out."""
    name = settings.curvature
    if accelerator in ("DEEPSPEED", "MEGATRON_LM"):
        raise InputError(
            f"Sophia with curvature={name} takes gradients apart from the step's, which {accelerator} does not allow; "
            "use FSDP2, DDP or one process, or --optimizer adamw"
        )
    if name == "hutchinson" and any(p.requires_grad and p.dtype.itemsize < 4 for p in parameters):
        raise InputError(ROUNDED)


def inner(optimizer: Any) -> Sophia:
    """The optimizer under accelerate's wrapper."""
    found: Sophia = getattr(optimizer, "optimizer", optimizer)
    return found


def uniform(view: ForwardPass, batch: Mapping[str, Any], *key: str | int) -> Tensor:
    """(N,) numbers in [0, 1), one a labelled token, a function of ``key``, the row and the token's place in the answer."""
    lengths = batch["lengths"] if "lengths" in batch else view.lengths.tolist()
    drawn = [torch.rand(n, generator=generator(*key, i)) for i, n in zip(numbers(batch), lengths, strict=True)]
    return to_device(torch.cat(drawn), view.labels.device)
