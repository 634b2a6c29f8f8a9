"""An optimizer step of several objectives: its passes over micro-batches that fit into memory.

One graph lives at a time.  A combiner without a Gramian scales each loss and lets the gradients add up; one with a Gramian
gets each gradient in a buffer of its own: pointers are swapped, nothing is cloned.
"""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from tqdm.auto import tqdm

from expunge.combine import Combiner
from expunge.data.collate import labelled_tokens
from expunge.errors import RunFailed
from expunge.forward.transfer import to_device
from expunge.training import micro, supported
from expunge.training.curvature import Curvature
from expunge.training.gradients import trained
from expunge.training.passes import ObjectivesTrainer
from expunge.training.together import Together

DDP = ("MULTI_GPU", "MULTI_CPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_SDAA", "MULTI_MUSA", "MULTI_HPU")


class SteppingTrainer(ObjectivesTrainer):
    """A trainer whose steps begin again, in smaller micro-batches, where memory runs out."""

    combine: Combiner
    curvature: Curvature | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fit = micro.Fit(self.args.train_batch_size)
        ddp = self.accelerator.distributed_type.value in DDP
        self.together = Together(self.args.ddp_bucket_cap_mb) if ddp else None
        self._buffers: dict[str, list[Tensor | None]] = {}
        self._losses: Tensor | None = None  # (m,) of the step so far
        self._parts: list[dict[str, Any]] = []  # micro-batches of the step so far
        self._sizes: list[int] = []  # rows of each micro-batch of the step, where they were counted
        self._totals: dict[str, Tensor] = {}  # labelled tokens and rows of each stream in the step
        self._began = time.perf_counter()  # of the optimizer step

    def _fixed_weights(self) -> Tensor:
        """The weights of a combiner that reads no Gramian."""
        return self.combine.weights(torch.zeros(len(self.method.objectives), device=self.args.device), None)

    @abstractmethod
    def _end(self, model: nn.Module) -> None:
        """What follows the last micro-batch of a step."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of each objective in turn; the combined gradient stands in ``p.grad`` at the sync step.

        Where memory runs out the micro-batches are halved and the step is done again; see :mod:`expunge.training.micro`.
        """
        if not self._parts:
            self._began, self._chance = time.perf_counter(), micro.Chance.now(self.args.device)
            self._lost, self._returned = False, torch.zeros((), device=self.args.device)
        model.train()
        self._parts.append(inputs)
        value = None if self._lost else self._passes(model, [inputs])
        while self._out_of_memory(value is None):
            self._begin_again()
            value = self._passes(model, self._parts)
            value = None if value is None else value - self._returned
        self._lost = value is None  # the other processes learn it at the end of the step
        value = torch.zeros_like(self._returned) if value is None else value
        self._returned = self._returned + value
        if self.accelerator.sync_gradients:
            self._parts = []
            self._end(model)
        return value

    def _passes(self, model: nn.Module, parts: Sequence[dict[str, Any]]) -> Tensor | None:
        """Forward and backward of micro-batches of the step; the loss, None where there is no memory for them."""
        alone = model.no_sync() if self.together else nullcontext()  # type: ignore[operator]  # DDP's
        try:
            with alone:
                return torch.stack([self._pass(model, piece) for part in parts for piece in self._pieces(part)]).sum()
        except Exception as error:
            if not micro.is_out_of_memory(error):
                raise
        return None

    def _pieces(self, part: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A micro-batch, or what it is cut into, on the device, with what means divide by."""
        n = self._number()
        counts = {s: {"token_count": t[0] / n, "sequence_count": t[1] / n} for s, t in self._totals.items()}
        collate: Any = self.data_collator
        for piece in micro.cut(part, self.fit.rows, self.train_dataset.streams, collate):
            yield self._prepare_inputs({**piece, "counts": counts} if counts else dict(piece))

    def _number(self) -> int:
        """Into how many pieces the step is cut."""
        counted = sum(map(self.fit.pieces, self._sizes))
        return counted or int(self.current_gradient_accumulation_steps)

    def _pass(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Forward and backward of each objective on one piece; gradients and losses are added up."""
        gram = self.combine.needs_gram
        parts = self._number()
        fixed = None if gram else self._fixed_weights()
        params = trained(model)
        at_once = self.accelerator.distributed_type.value in supported.STEPS_INSIDE_BACKWARD
        losses, total = [], torch.zeros((), device=self.args.device)
        for k, name in enumerate(self.method.objectives):
            if gram:
                self._swap_in(name, params)
            with self.compute_loss_context_manager():
                loss = self.objective_loss(name, model, inputs) * (1 / parts)
            weighted = loss if fixed is None else fixed[k] * loss
            if at_once:  # each backward pass would be a step of its own
                total = total + weighted
            else:
                self.accelerator.backward(weighted)
            if gram:
                self._buffers[name] = [p.grad for p in params]
            losses.append(loss.detach().float())
        if at_once:
            self.accelerator.backward(total, scale_wrt_gas=False)  # the loss is of the whole step already
        if self.curvature:
            self.curvature.observe(model, inputs, self.state.global_step, parts)
        values = torch.stack(losses)
        self._losses = values if self._losses is None else self._losses + values
        if gram:
            for p in params:
                p.grad = None
        return (values if fixed is None else fixed * values).sum()

    def _out_of_memory(self, here: bool) -> bool:
        """Whether the step has to be done again, because memory ran out ``here`` or, at its end, in another process."""
        if self.together:
            return bool(self.accelerator.sync_gradients) and self.together.any([here])[0]
        if here and self.args.world_size > 1:
            raise RunFailed(f"out of memory in a process at step {self.state.global_step + 1}: {micro.SHARDED}")
        return here

    def _begin_again(self) -> None:
        """Forget what was done of the step, and halve its micro-batches."""
        self._forget()
        if self.curvature:
            self.curvature.forget()
        clear_device_cache(garbage_collection=True)
        step = self.state.global_step + 1
        self.fit.halve(step)
        if self.args.should_save and not self.args.disable_tqdm:
            what = f"out of memory at step {step}: micro-batches of {self.fit.rows} rows from here on"
            tqdm.write(what, file=sys.stderr)
        self._chance.restore()

    def _forget(self) -> None:
        self._losses, self._buffers = None, {}
        for p in self.model.parameters():
            p.grad = None

    def _swap_in(self, name: str, params: list[nn.Parameter]) -> None:
        for p, g in zip(params, self._buffers.get(name, [None] * len(params)), strict=True):
            p.grad = g

    def _count(self, batches: list[dict[str, Any]]) -> None:
        """Count the labelled tokens and rows of the step, of each stream, and the rows of each micro-batch."""
        names = list(batches[0])
        whole = {s: [b[s] for b in batches if "filler" not in b[s]] for s in names}
        totals = [
            [sum(sum(labelled_tokens(b)) for b in whole[s]), sum(len(b["labels"]) for b in whole[s])] for s in names
        ]
        counted = to_device(torch.tensor(totals, dtype=torch.float32), self.args.device)
        self._totals = dict(zip(names, self.accelerator.reduce(counted, "mean"), strict=True))
        self._sizes = [max(len(b[s]["labels"]) for s in names) for b in batches]
