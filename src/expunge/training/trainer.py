"""``transformers.Trainer`` with several objectives: three overrides and no copied loop.

1. ``get_batch_samples`` counts the labelled tokens and sequences of a whole optimizer step, so a mean is a mean
   over the step however it is cut into micro-batches and ranks.
2. ``training_step`` (:mod:`expunge.training.step`) runs forward and backward for one objective at a time, so one
   graph lives at a time.  A combiner without a Gramian scales each loss and lets the gradients add up; one with a
   Gramian gets each gradient in a buffer of its own (pointers are swapped, nothing is cloned) and the weighted sum is
   written at the sync step, before clipping.
3. ``log`` adds each objective's loss and weight, the multiplier, the gradients' norms and their cosine.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from tqdm.auto import tqdm

from expunge import combine
from expunge.data.streams import EpochSampler
from expunge.forward import padding
from expunge.forward.family import in_parts
from expunge.forward.transfer import numbers
from expunge.method import Method, fitted
from expunge.models import lora as adapters
from expunge.sophia import Settings, Sophia
from expunge.training import (
    budget,
    checkpoints,
    finite,
    levels,
    like_trl,
    reference,
    sharded,
    stopping,
    stops,
    supported,
    utility,
    zero3,
)
from expunge.training.curvature import Curvature, Hooks, check_model
from expunge.training.curvature import check as check_curvature
from expunge.training.gradients import gram_facts, gramian, trained, write_combined
from expunge.training.schedule import from_above_zero
from expunge.training.step import SteppingTrainer


class UnlearningTrainer(SteppingTrainer):
    """Trains a :class:`~expunge.method.Method` on a :class:`~expunge.data.streams.PairedDataset`.

    As a trainer of TRL it takes ``model``, ``args``, ``train_dataset`` (``{"forget": rows, "retain": rows}``),
    ``processing_class``, ``callbacks`` and ``peft_config``, and the ``method`` by name: :mod:`expunge.training.like_trl`.
    Batches are ``{stream: {"input_ids", "attention_mask", "labels", "index"}}``; a plain batch (with ``labels``) goes to
    ``Trainer``'s own loss, so ``evaluate`` works unchanged.  ``start_loss`` is the start model's loss of the second
    objective, which a combiner may ask for; left out it is measured then.  ``holdout``: rows the model never saw, see
    :mod:`expunge.training.stopping`.  ``level``: a model that never saw the forget rows, its name or what
    loads it, or what it predicts in them, for methods that end there (:mod:`expunge.training.levels`).  ``keep``: rows that
    it must not lose, see :mod:`expunge.training.utility`.
    ``plan``: see :class:`expunge.training.resume.ResumableTrainer`.
    """

    model: Any
    train_dataset: Any

    def __init__(
        self,
        *args: Any,
        method: Method | str | None = None,
        peft_config: Any = None,
        max_length: int = 512,
        chat_template: bool = True,
        start_loss: float | None = None,
        holdout: Any = None,
        keep: utility.Keep | None = None,
        level: reference.Level | nn.Module | str | None = None,
        **kwargs: Any,
    ):
        given = like_trl.named(args) | kwargs
        kwargs, method = like_trl.prepared(
            given, method, peft_config, level=level, max_length=max_length, chat_template=chat_template
        )
        super().__init__(**kwargs)
        self.accelerator.gradient_accumulation_steps = 1  # the step divides; with older transformers backward would too
        self.args.logging_nan_inf_filter = False  # it would read every loss; what is not finite ends the run
        if self.args.device.type == "cuda" and self.args.dataloader_pin_memory:
            self.accelerator.dataloader_config.non_blocking = True  # out of pinned memory
        self.shards = sharded.shard(self.accelerator, self.model) if sharded.version(self.accelerator) else None
        if self.shards:
            self.model = self.model_wrapped = self.shards.model
        self.skeleton = sharded.skeleton_of(self.model) if zero3.switched_on(self.args) else None
        if method.fit:
            method = fitted(method, sharded.placed(self.model, self.args.device).eval(), self.batches("forget"))
        self.method = method
        self.combine = combine.complete(copy.deepcopy(method.combine))
        self.start_loss = start_loss
        self.holdout = holdout
        self.stop: stopping.StopAtLevel | None = None
        self.keep = keep
        self.budget: dict[str, Any] | None = None  # what became of it
        self.guard: utility.UtilityGuard | None = None
        self.warnings: list[str] = []
        self.health = finite.Watch(late=finite.read_late(self.args.device))
        supported.check(method, self.combine, self._fixed_weights, self.accelerator.distributed_type.value)
        self._facts: dict[str, Tensor] = {}  # what the last step is logged with
        padding.settle(self.model, max(self._first_rows(), key=len))
        self.reference = reference.build(
            self.model,
            method.objectives,
            rows=lambda stream: [self.train_dataset.streams[stream][i] for i in self._rows_in_training(stream)],
            batches=partial(self.batches, in_training_only=True),
            autocast=self.compute_loss_context_manager,
            device=self.args.device,
            shards=self.shards,
            level=like_trl.level_of(level),
        )
        self.level: levels.StopAtModelLevel | None = None
        self.curvature: Curvature | None = None
        if method.optimizer and self.optimizer is None:
            self.curvature = self._curvature(method.optimizer)
            self.add_callback(self.curvature)
            self.optimizer_cls_and_kwargs = Sophia, {"lr": self.args.learning_rate, **method.optimizer.of_the_step}

    # -- set-up ---------------------------------------------------------------------------------------------------------
    def create_accelerator_and_postprocess(self) -> None:
        """As any trainer's; on CPUs too it is FSDP that the arguments ask for."""
        super().create_accelerator_and_postprocess()
        zero3.make_whole(self.args)
        self.is_fsdp_enabled = sharded.enable_on_cpu(self.accelerator, self.args)

    def _curvature(self, settings: Settings) -> Curvature:
        check_curvature(settings, self.combine, self.args)
        check_model(settings, self.accelerator.distributed_type.value, self.model.parameters())
        hooks = Hooks(
            streams=self.method.streams,
            objectives=list(self.method.objectives),
            loss=self.objective_loss,
            weights=self._fixed_weights,
            autocast=self.compute_loss_context_manager,
            backward=self.accelerator.backward,
            log=lambda key, value: self._facts.update({key: value}),
            seed=self.args.seed,
            processes=self.args.world_size,
        )
        return Curvature(settings, hooks)

    def _first_rows(self) -> Iterator[tuple[int, ...]]:
        return (examples[0].input_ids for examples in self.train_dataset.streams.values() if len(examples))

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train; a multiplier's budget and warm-up are settled first, on the start model; a negated method turns round last.

        Checkpoints of a negated method hold the model as it learns, before it is turned round.  Raises InputError where the
        checkpoint to go on from lacks what training needs.
        """
        self._parts = []
        begin = self.keeper.begin = checkpoints.located(resume_from_checkpoint, self.args.output_dir)
        self._settle()
        if begin:
            checkpoints.restore(self.combine, begin)
        if self.holdout:
            self.stop = stopping.at_level_of(self, self.holdout)
            self.add_callback(self.stop)
        if self.method.reads_level:
            self.level = levels.of(self)
            self.add_callback(self.level)
        if self.keep:
            rows = self.keep.rows
            self.guard = utility.UtilityGuard(self.keep, self.model, lambda: self.probability(rows))
            self.add_callback(self.guard)
        negate = self.method.negate
        start = {} if negate is None else adapters.start_of(self.model)
        with disable_input_dtype_casting(self.model, active=bool(self.accelerator.native_amp)):  # autocast does it
            result = super().train(str(begin) if begin else None, *args, **kwargs)
        self.health.check_weights(self.model, self.state.global_step)
        if self.health.diverged:
            self.go_back("")
        elif self.state.global_step and not self.health.moved:
            raise stops.never_moved(self)
        elif self.guard:
            self.guard.conclude(self.state.global_step)
        level = self._level_at_the_end()
        self.budget = budget.outcome(self)
        said = self.fit.warning(self.args.gradient_accumulation_steps), stops.warning(self), budget.warning(self.budget)
        self.warnings += filter(None, (*said, level.warning if level else None))
        if negate is not None:
            adapters.negate(self.model, start, negate)
            self.health.good = None  # a copy is of the model as it learnt
        return result

    def _level_at_the_end(self) -> levels.Difference | None:
        if self.level is None:
            return None
        if self.health.diverged or (self.guard and self.guard.crossed):  # these weights were chosen already
            self.level.found = self.level.test()
            return self.level.found
        return self.level.conclude(self.state.global_step)

    def gathered(self) -> Any:
        """The model; where it is sharded the whole one on the CPU of the main process, and its shards in the others."""
        if self.skeleton is not None and in_parts(self.model):
            return zero3.gathered(self.skeleton, self.model, main=self.args.process_index == 0)
        return self.shards.gathered() if self.shards else self.model

    def go_back(self, what: str) -> bool:
        """Put back the last weights that gave finite losses, for ``what`` is not; whether there are any.

        Under a utility guard they also keep enough.
        """
        there = self.health.go_back(self.model, self.state.global_step, what)
        broken, guard = self.health.diverged, self.guard
        if guard is None or broken is None:
            return there
        if not there and guard.good:
            finite.restore(self.model, guard.good)
        elif not there or guard.conclude(broken.good or 0):
            return there
        self.health.diverged = replace(broken, good=guard.good.step if guard.good else None)
        return True

    def _settle(self) -> None:
        steps = self.args.max_steps
        if steps <= 0:
            *_, steps = self.set_initial_training_values(self.args, self.get_train_dataloader())
        self.combine = combine.complete(self.combine.settle(steps, self._start_loss))
        self._watch({})
        if self.warnings and self.args.should_save and not self.args.disable_tqdm:
            tqdm.write(f"warning: {self.warnings[-1]}", file=sys.stderr)

    def _start_loss(self, k: int) -> float:
        """The start model's loss of objective ``k``, in the order of the method."""
        if k == 1 and self.start_loss is not None:
            return self.start_loss
        return self.measure(list(self.method.objectives)[k])

    # -- data -----------------------------------------------------------------------------------------------------------
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        args, rows = self.args, len(self.train_dataset if train_dataset is None else train_dataset)
        several = args.world_size > 1 and not args.dataloader_drop_last
        return EpochSampler(rows, args.train_batch_size * args.world_size if several else 1, self._epoch)

    def _epoch(self) -> int:
        """The epoch that the next optimizer step is in."""
        return int(self.state.epoch or 0)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of one optimizer step, each told what its means divide by; none where training has ended."""
        if self.control.should_training_stop:
            return [], None
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches and "labels" not in batches[0]:
            self._count(batches)
        return batches, items

    # -- the end of a step ------------------------------------------------------------------------------------------
    def _end(self, model: nn.Module) -> None:
        """All micro-batches are through: the mean over DDP's processes, and the step, if it may be taken."""
        params = trained(model)
        fixed = None if self.combine.needs_gram else self._fixed_weights()
        if self.together:
            mean = partial(self.together.mean, params)
            self._buffers = {name: mean(grads) for name, grads in self._buffers.items()}
            if fixed is not None:
                for p, g in zip(params, mean([p.grad for p in params]), strict=True):
                    p.grad = g
            if self.curvature:
                self.curvature.average(mean, params)
        self._step_if_finite(params, fixed)

    def _step_if_finite(self, params: list[nn.Parameter], weights: Tensor | None) -> None:
        """:meth:`_sync`, or the end of training where a loss or a gradient is not finite, as far as the host knows.

        On a CPU it knows at once and that step moves nothing; see :mod:`expunge.training.finite`.  Under fp16 a gradient may
        overflow: the scaler leaves that step out by itself.
        """
        assert self._losses is not None
        losses = self.accelerator.reduce(self._losses, "mean")
        by_name = dict(zip(self.method.objectives, losses, strict=True))
        grads = [p.grad for p in params] if weights is not None else [g for b in self._buffers.values() for g in b]
        everywhere = partial(self.accelerator.reduce, reduction="mean")
        scaled = bool(getattr(self.accelerator, "scaler", None))
        own = [g for g in grads if g is not None]
        if self.health.check(self.model, by_name, own, self.state, everywhere, scaled=scaled):
            if self.health.still >= stops.patience(self):
                self._stand_still()
            return self._sync(params, weights, losses)
        self._facts = {f"loss/{name}": value for name, value in by_name.items()}
        self._forget()
        self.control.should_training_stop = True

    def _stand_still(self) -> None:
        """No weight has had a gradient for long: raises RunFailed where none ever had, and ends training otherwise."""
        if not self.health.moved:
            raise stops.never_moved(self)
        self.control.should_training_stop = True

    def _sync(self, params: list[nn.Parameter], weights: Tensor | None, losses: Tensor) -> None:
        """The end of an optimizer step: combine the gradients, move the combiner, keep what is logged."""
        self._facts = {}
        if weights is None:
            grads = list(self._buffers.values())
            gram = gramian(grads)
            weights = self.combine.weights(losses, gram)
            write_combined(params, grads, weights)
            self._buffers = {}
            self._facts = gram_facts(gram, list(self.method.objectives))
        for k, name in enumerate(self.method.objectives):
            self._facts |= {f"loss/{name}": losses[k], f"weight/{name}": weights[k]}
        self._facts |= self.combine.facts()
        self.combine.step(losses)
        self._losses = None

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As any trainer's; of a sharded model it has the shards."""
        made = super().create_optimizer(*args, **kwargs)
        self._groups = [list(group["params"]) for group in made.param_groups]
        return made

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule that the arguments name; its warm-up begins above 0, so that no step is lost."""
        if self.shards and self.optimizer is not None:  # accelerate has found them again by address, and an empty
            for group, params in zip(self.optimizer.param_groups, self._groups, strict=True):  # shard has none
                group["params"] = params
        if self.lr_scheduler is None:
            schedule = super().create_scheduler(num_training_steps, optimizer)
            from_above_zero(schedule, self.args.get_warmup_steps(num_training_steps))
        return self.lr_scheduler

    # -- log ------------------------------------------------------------------------------------------------------------
    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Where the host waits for the device anyway, a run that broke down ends, and no checkpoint is written."""
        if (self.control.should_log or self.control.should_save) and not self.health.read():
            self.control.should_training_stop, self.control.should_save = True, False
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Every log line of training carries the facts of the last optimizer step."""
        if "loss" in logs and self._facts:
            facts = numbers(self._facts)
            logs = logs | facts | {"seconds": time.perf_counter() - self._began}
            self._watch(facts)
        super().log(logs, *args, **kwargs)

    def _watch(self, facts: Mapping[str, float]) -> None:
        if sentence := self.combine.watch(facts):
            self.warnings.append(sentence)
