"""The training of a run: its arguments, what of the model trains, and the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge import losses, processes
from expunge.combine import complete
from expunge.data import collate, streams
from expunge.data.example import evenly
from expunge.errors import InputError
from expunge.method import Method, fitted
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

if TYPE_CHECKING:
    from expunge.training import keeper

FIT_ROWS = 64  # of the forget set that a method is fitted on


def training_arguments(settings: Recipe, method: Method, forget_rows: int, folder: Path) -> Any:
    """The run's ``TrainingArguments``: suited defaults under what the user gave."""
    from expunge.training import arguments as training
    from expunge.training import checkpoints, curvature, sharded, shares, zero3

    suited = training.defaults(method, forget_rows, lora=settings.adapter == "lora")
    suited = shares.divided(suited, settings.training, forget_rows, processes.count())
    args = training.arguments(settings.training, suited, folder / "checkpoints", settings.seed, settings.device)
    sharded.check(args)
    zero3.make_whole(args)
    if begin := checkpoints.located(args.resume_from_checkpoint, args.output_dir):
        checkpoints.check(begin, method.combine)
    if method.optimizer:
        curvature.check(method.optimizer, method.combine, args)
    return args


def device_of(settings: Recipe, args: Any) -> Any:
    """The device that the models of a run are loaded on: that of its training; in main memory where it is then sharded."""
    from expunge.training import sharded

    return settings.device if sharded.switched_on(args) or args.deepspeed else args.device


def compute_dtype(settings: Recipe, method: Method) -> Any:
    """What the nf4 layers of a run compute in; None: what suits the device."""
    import torch

    differences = method.optimizer is not None and method.optimizer.curvature == "hutchinson"
    compute = "float32" if differences else settings.compute  # bfloat16 rounds differences of gradients away
    return getattr(torch, compute) if compute else None


def fit(method: Method, model: Any, tokenizer: Any, data: Data) -> Method:
    """``method`` with the values that suit ``model`` and the first forget rows, where it leaves any to them."""
    rows = data.examples["forget"][:FIT_ROWS]
    device = next(model.parameters()).device
    batches = (
        {
            key: value.to(device) if hasattr(value, "to") else value
            for key, value in collate.collate([vars(e) | {"index": i}], pad_id=tokenizer.pad_token_id).items()
        }
        for i, e in enumerate(rows)
    )
    return fitted(method, model, batches)


def check_fit(model: Any, settings: Recipe, method: Method) -> None:
    """Raise InputError for a layer or for weights that ``model`` does not have, before anything is measured."""
    from expunge import models
    from expunge.forward import layers
    from expunge.training import reference

    if what := reference.layer_read(method.objectives):
        with layers.up_to(model, what.layer):
            pass
    if hasattr(model, "peft_config"):
        raise InputError(
            f"{settings.model} is an adapter that no other can be trained on while its base is quantised; merge it into its "
            "base first, or leave quantize out"
        )
    if settings.adapter == "lora":
        models.check_targets(model, settings.lora.target_modules)
    if pattern := _chosen(settings, method):
        (models.lora_targets if settings.adapter == "lora" else models.train_only)(model, pattern)


def prepare(model: Any, settings: Recipe, method: Method) -> Any:
    """``model`` with what is to train: LoRA factors or weights, all of them or the chosen ones."""
    from expunge import models

    pattern = _chosen(settings, method)
    if settings.adapter != "lora":
        if pattern:
            models.train_only(model, pattern)
        return model
    lora = settings.lora.model_dump()
    if pattern:
        lora |= models.lora_targets(model, pattern)
    return models.attach_lora(model, **lora, seed=settings.seed)


def _chosen(settings: Recipe, method: Method) -> str | None:
    """The regular expression on what trains: the user's, or the method's unless the user gave LoRA's target_modules."""
    lora = settings.adapter == "lora" and "target_modules" in settings.lora.model_fields_set
    return settings.trainable or (None if lora else method.trainable)


def train(
    net: Any,
    tokenizer: Any,
    data: Data,
    method: Method,
    args: Any,
    *,
    start_loss: float | None = None,
    callbacks: Sequence[Any] = (),
    plan: keeper.Plan | None = None,
    begin: Path | None = None,
    first: Callable[[Any], float | None] | None = None,
    settings: Recipe | None = None,
    level: Any = None,
    progress: str = "unlearning",
) -> Any:
    """Train ``net`` in place; returns the trainer, whose state holds the log.

    ``plan``: checkpoints of the run's own; ``begin``: the one to go on from.  ``first``: called with the trainer before its
    first step, gives ``start_loss``.  ``settings``: of a run with a utility guard.
    ``level()``: loads a model that never saw the forget rows; or the values of such a one.  ``progress``: what the bar says.
    """
    from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from expunge.training import rate, trackers
    from expunge.training.progress import ProgressLine
    from expunge.training.trainer import UnlearningTrainer

    window = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    window = min(window, len(data.examples["forget"]))  # an epoch ends a step
    dataset = streams.PairedDataset({s: data.examples[s] for s in method.streams}, seed=args.seed, window=window)
    with trackers.writing_into(trackers.home(args.output_dir), args):
        trainer = UnlearningTrainer(
            model=net,
            args=args,
            train_dataset=dataset,
            data_collator=partial(collate.collate, pad_id=tokenizer.pad_token_id),
            method=method,
            start_loss=start_loss,
            holdout=None if method.reads_level else data.examples.get("holdout"),
            keep=_keep(data, settings) if settings else None,
            level=level,
            callbacks=[ProgressLine(progress), *callbacks],
            plan=plan,
        )
        for noisy in (
            PrinterCallback,
            ProgressCallback,
            DEFAULT_PROGRESS_CALLBACK,
        ):  # the last is another in a notebook
            trainer.remove_callback(noisy)
        if first:
            trainer.start_loss = first(trainer)
        if settings and rate.is_found(method, args, settings.training):
            args.learning_rate = rate.suited(trainer) or args.learning_rate
        trainer.train(resume_from_checkpoint=begin or args.resume_from_checkpoint)
        return trainer


def _keep(data: Data, settings: Recipe) -> Any:
    from expunge.training import utility

    if settings.keep is None:
        return None
    return utility.Keep(settings.keep, evenly(data.examples["keep_rows"], utility.MAX_ROWS), settings.keep_every)


def start_loss_of(method: Method, before: Mapping[str, Mapping[str, float]]) -> float | None:
    """The second objective before training, where the figures hold it and need not be exact; None where they do not."""
    second = list(method.objectives.values())[1:2]
    plain = [o.loss is losses.nll and o.on == ("retain",) for o in second] == [True]
    return before["retain"]["nll"] if plain and not complete(method.combine).needs_start else None
