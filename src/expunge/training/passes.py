"""Passes over a run's rows: which of them training sees, in batches, and what an objective says of one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.collate import labelled_tokens
from expunge.data.example import Example
from expunge.forward.family import parameters
from expunge.forward.view import IGNORE, ForwardPass, see
from expunge.method import Method, Objective
from expunge.training import sharded
from expunge.training.cached import numbers
from expunge.training.micro import Fit
from expunge.training.resume import ResumableTrainer


class ObjectivesTrainer(ResumableTrainer):
    """A trainer whose ``method`` has objectives on the streams of its ``train_dataset``."""

    method: Method
    reference: Any
    train_dataset: Any
    fit: Fit

    def _rows_in_training(self, stream: str) -> list[int]:
        """The rows of ``stream`` that this run's steps take, ascending."""
        data, args = self.train_dataset, self.args
        step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        rows = (
            args.max_steps * min(step, len(data))
            if args.max_steps > 0
            else math.ceil(args.num_train_epochs) * len(data)
        )
        rows = math.ceil(rows / len(data)) * len(data)  # an epoch's short last step moves what follows
        return list(data.rows(stream, rows))

    def batches(self, stream: str, *, in_training_only: bool = False) -> Iterator[dict[str, Tensor]]:
        """Rows of ``stream`` once, longest together: for passes before training."""
        examples = self.train_dataset.streams[stream]
        return self._in_batches(examples, self._rows_in_training(stream) if in_training_only else range(len(examples)))

    def _in_batches(self, examples: Sequence[Example], rows: Iterable[int]) -> Iterator[dict[str, Tensor]]:
        by_length = sorted(rows, key=lambda i: len(examples[i].input_ids))
        size = self.fit.rows
        for i in range(0, len(by_length), size):
            yield self._prepare_inputs(
                self.data_collator(
                    [
                        {"input_ids": examples[j].input_ids, "labels": examples[j].labels, "index": j}
                        for j in by_length[i : i + size]
                    ]
                )
            )

    def measure(self, name: str, examples: Sequence[Example] | None = None) -> float:
        """Objective ``name`` over its rows, or over ``examples``, under the model as it is now; one pass, no gradient."""
        objective = self.method.objectives[name]
        (stream,) = objective.on
        given = self.train_dataset.streams[stream] if examples is None else examples
        rows = self._rows_in_training(stream) if objective.reference is not None else range(len(given))
        tokens = sum(sum(y != IGNORE for y in given[i].labels[1:]) for i in rows)
        counts = {"token_count": torch.tensor(float(tokens)), "sequence_count": torch.tensor(float(len(rows)))}
        sharded.placed(self.model, self.args.device).eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            return sum(
                float(objective.loss(self._view(self.model, stream, batch, objective, counts)))
                * (
                    1 if objective.positions == "answer" else len(batch["labels"]) / len(rows)
                )  # a mean of its own batch
                for batch in self._in_batches(given, rows)
            )

    def probability(self, examples: Sequence[Example]) -> float:
        """The mean over ``examples`` of the probability of the answer per token, under the model as it is now; no gradient.

        Every process gets the same number.
        """
        sharded.placed(self.model, self.args.device).eval()
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self._in_batches(examples, range(len(examples))):
                logp = see(self.model, batch, grad=False).token_logp.double()
                total += sum(row.mean().exp() for row in logp.split(list(labelled_tokens(batch))))
        return float(self.accelerator.reduce(total / len(examples), "mean"))

    def row_logp(self, stream: str, rows: Sequence[int]) -> Tensor:
        """(n,) the mean log-probability per labelled token of ``rows`` of ``stream`` under the model as it is now, in their
        order, in float64 on the host; no gradient.  Every process gets the same numbers.
        """
        sharded.placed(self.model, self.args.device).eval()
        found: dict[int, Tensor] = {}
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self._in_batches(self.train_dataset.streams[stream], rows):
                logp = see(self.model, batch, grad=False).token_logp.double()
                means = [row.mean() for row in logp.split(list(labelled_tokens(batch)))]
                found.update(zip(numbers(batch), means, strict=True))
        every: Tensor = self.accelerator.reduce(torch.stack([found[i] for i in rows]), "mean")
        return every.cpu()

    def _view(
        self,
        model: nn.Module,
        stream: str,
        batch: Mapping[str, Tensor],
        objective: Objective,
        counts: Mapping[str, Tensor],
    ) -> ForwardPass:
        def ref() -> ForwardPass:
            seen: ForwardPass = self.reference.view(model, stream, batch, objective, own)
            return seen

        if objective.positions != "answer":
            counts = {}
        own = see(
            model,
            batch,
            positions=objective.positions,
            reference=ref if objective.reference else None,
            counts=counts,
        )
        return own

    def objective_loss(self, name: str, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """The scalar loss of objective ``name`` on a batch of streams."""
        objective = self.method.objectives[name]
        counts = inputs.get("counts", {})
        views = [self._view(model, s, inputs[s], objective, counts.get(s, {})) for s in objective.on]
        loss = objective.loss(*views)
        return loss * 0 if any("filler" in inputs[s] for s in objective.on) else loss

    def autocast_smart_context_manager(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        """The number format of the step, for what runs before training too: transformers leaves it to the forward pass
        that accelerate has prepared by then, and a reference would be computed in another one than the model.

        Not by ``accelerator.autocast()``, which makes accelerate forget that a model is in shards.
        """
        if not self.accelerator.native_amp:
            return nullcontext()
        half = torch.float16 if self.accelerator.mixed_precision == "fp16" else torch.bfloat16
        return torch.autocast(self.args.device.type, dtype=half)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 × parameters × tokens over all streams, prompt and padding included."""
        tokens: int = sum(inputs[s]["input_ids"].numel() for s in self.method.streams if s in inputs)
        return 6 * tokens * parameters(self.model)
