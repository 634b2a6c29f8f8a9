"""Three lines for a user: ``unlearn(model, forget=…, retain=…, method=…)`` gives the unlearned model and its record."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge import hub, outputs, processes, record
from expunge.data import template
from expunge.errors import InputError, RunFailed
from expunge.method import Method
from expunge.training import signals
from expunge.unlearning import describe, level, neutral, outcome, train, unfinished
from expunge.unlearning import settings as recipe
from expunge.unlearning.conclude import Trained, conclude
from expunge.unlearning.measure import measure
from expunge.unlearning.python_inputs import NO_INPUTS, PythonInputs, from_python, one_display, with_gradients
from expunge.unlearning.ready import ready
from expunge.unlearning.result import Result as Result
from expunge.unlearning.rows import Data, with_alternates
from expunge.unlearning.settings import Recipe

logger = logging.getLogger(__name__)


def unlearn(
    model: Any,
    *,
    forget: Any,
    retain: Any = None,
    method: str | Method | None = None,
    out: str | Path = "unlearned",
    adapter: str | None = None,
    tokenizer: Any = None,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Result:
    """Make ``model`` forget ``forget`` and keep ``retain``; writes ``out`` and returns what it wrote.

    ``model``: hub id, folder, GGUF file or PEFT adapter folder, or a model of transformers or PEFT in memory, of which a
    copy is unlearned: yours stays as it is (for want of memory give its folder).  ``tokenizer``: an object or a name, where
    it is not the model's own.  ``forget``, ``retain``: a file, a folder, a hub name, a ``datasets.Dataset``, or a list of
    dicts or of texts.  ``callbacks``: of ``transformers.Trainer``, such as a ``TrainerCallback``.  ``method``: a name or a
    value such as ``methods.blur_npo(beta=0.1)``; left out it is that of ``expunge run``, which ends by itself.
    ``adapter="lora"`` trains LoRA factors and saves the adapter.  ``optimizer="sophia"`` makes the steps second-order, with
    ``optimizer_parameters={"rho": …}``; left out it is the method's, AdamW as a rule.  ``settings`` are fields of
    :class:`expunge.unlearning.settings.Recipe`, or of ``transformers.TrainingArguments`` by name (``learning_rate=…``; for
    three there is a short name, ``lr``, ``epochs`` and ``batch_size``).

    Where ``out`` holds an unfinished run of the same settings and data it goes on, ``fresh=True`` starts over.

    In a script that ``torchrun`` or ``accelerate launch`` started several times the processes train together: the first
    writes, and all get the record; only its ``result.model`` is the one that was measured last.

    Raises :class:`~expunge.errors.InputError` for anything in the input that a person has to mend, before the model is
    loaded wherever that is possible, and :class:`~expunge.errors.RunFailed` for a run that began and broke down, or whose
    weights could not be saved where they belong; what was written all the same is its ``result``.
    """
    chosen, inputs = from_python(model, tokenizer, callbacks, settings | {"adapter": adapter})
    place = os.fspath(out) if isinstance(out, os.PathLike) else out
    values = {"forget": forget, "retain": retain, "out": place, **chosen}
    own = method if isinstance(method, Method) else None
    if own is not None:
        values |= {"method": own.name, "parameters": dict(own.parameters)}
    elif isinstance(method, str):
        values["method"] = method
    elif method is not None:
        called = f"call it, methods.{method.__name__}()" if hasattr(method, "__name__") else "give a name"
        raise InputError(f"method is a {type(method).__name__} and no Method; {called}")
    processes.complete_environment()
    processes.leave_at_exit()
    made = recipe.make(values)
    with one_display(), with_gradients():
        done = run(made, method=own, inputs=inputs)
    hub.after(made, done.folder)
    for warning in done.record["warnings"] if processes.is_main() else ():
        logger.warning(warning)
    return done


def run(
    settings: Recipe,
    *,
    method: Method | None = None,
    command: str | None = None,
    measured: dict[str, dict[str, Any]] | None = None,
    inputs: PythonInputs = NO_INPUTS,
) -> Result:
    """Carry out a recipe.

    ``method`` stands in for the recipe's name and parameters when it is a value of the user's.  ``measured`` keeps what was
    measured of each model by name, so several runs on the same data measure the target once.  ``inputs``: what is in memory.
    """
    measured = {} if measured is None else measured
    began = time.monotonic()
    with signals.caught():
        processes.check_count(settings.processes)
        prepared = ready(settings, method, inputs)
        with (
            outputs.claimed(settings.out, record.LAYOUT, overwrite=settings.overwrite) as folder,
            unfinished.naming_saved_step(folder),
        ):
            return _carried_out(settings, *prepared, folder, command, measured, began, inputs)


@dataclass(frozen=True)
class _Job:
    """What every stage of a run reads; ``load(name)`` loads a model as the target is loaded."""

    settings: Recipe
    method: Method
    data: Data
    args: Any
    folder: Path
    measured: dict[str, dict[str, Any]]
    inputs: PythonInputs
    checkpointed: unfinished.Run
    load: Callable[..., Any]
    in_shards: bool  # whether no process holds the whole model while it trains
    together: bool  # whether each pass after training is one of all processes


def _carried_out(
    settings: Recipe,
    method: Method,
    data: Data,
    args: Any,
    folder: Path,
    command: str | None,
    measured: dict[str, dict[str, Any]],
    began: float,
    inputs: PythonInputs,
) -> Result:
    """What :func:`run` does after :func:`ready`, in a folder that is this process's alone."""
    job = _begun(settings, method, data, args, folder, measured, began, inputs)
    target = _load_target(job)
    parent, parent_warnings = describe.parent_of(job.settings, target.fingerprint)
    job = _fitted(job, target)
    compared = _measure_before(job, target)
    from_level, level_warnings = level.loader(job.settings, job.method, job.load, job.data, target, folder)
    trainer = _train(job, target, compared, from_level)
    after = _measure_after(job, trainer, target.tokenizer)
    net = trainer.gathered()  # sharded weights whole in the main process
    trained = Trained(
        net=net,
        target=target,
        trainer=trainer,
        method=job.method,
        data=job.data,
        args=args,
        before=measured[settings.model],
        after=after,
        compared=compared,
        parent=parent,
        warnings=[*parent_warnings, *level_warnings],
        command=command,
        start=lambda device: inputs.load(job.settings, device) or job.load(settings.model, device=device),
    )
    # Of several processes one writes, and checks what it wrote; the others get the record.
    done: Result = processes.on_main(
        lambda: conclude(trained, job.settings, folder, job.checkpointed),
        lambda it: replace(it, model=None, tokenizer=None),
    )
    return done if done.model is not None else replace(done, model=net, tokenizer=target.tokenizer)


def _begun(
    settings: Recipe,
    method: Method,
    data: Data,
    args: Any,
    folder: Path,
    measured: dict[str, dict[str, Any]],
    began: float,
    inputs: PythonInputs,
) -> _Job:
    """The run in its folder, with the checkpoint that it goes on from, and how its models are loaded."""
    import torch

    from expunge import models
    from expunge.training import sharded, zero3

    in_shards = sharded.switched_on(args)
    if in_shards:  # no device need hold the whole model
        settings = settings.model_copy(update={"device": "cpu"})
    unfinished.begin(folder, settings)
    identity = unfinished.identity(settings, method, data, args)
    this = unfinished.Run(identity, unfinished.find(folder, identity, settings), began)
    unfinished.check_visible(this.unfinished, folder)
    load = partial(
        models.load,
        dtype=getattr(torch, settings.loaded),
        device=train.device_of(settings, args),
        trust_remote_code=settings.trust_remote_code,
        attn=settings.attn,
        quantize=settings.quantize,
        compute_dtype=train.compute_dtype(settings, method),
    )
    together = in_shards or zero3.switched_on(args)
    return _Job(settings, method, data, args, folder, measured, inputs, this, load, in_shards, together)


def _load_target(job: _Job) -> Any:
    """The model to unlearn, checked."""
    from expunge.training import finite

    settings = job.settings
    target = job.inputs.load(settings, train.device_of(settings, job.args)) or job.load(settings.model)
    unfinished.check_model(job.checkpointed.unfinished, target.fingerprint, job.folder)
    finite.check_model(target.model, settings.model)
    template.attach(target.tokenizer, job.data.rendering)
    return target


def _fitted(job: _Job, target: Any) -> _Job:
    """``job`` with what its method and data take from the target: the method's own values, rows that it writes."""
    method = train.fit(job.method, target.model, target.tokenizer, job.data)
    train.check_fit(target.model, job.settings, method)
    data = job.data
    if neutral.wanted(job.settings, method):
        data = neutral.with_neutral(data, target, job.settings, job.folder)
    if method.alternate == "generated":
        data = with_alternates(data, target, job.settings, job.folder)
    return replace(job, method=method, data=data)


def _measure_before(job: _Job, target: Any) -> dict[str, Any] | None:
    """Measure the target, unless it is sharded first, and the third model, whose figures are returned."""
    settings, measured, checkpoint = job.settings, job.measured, job.checkpointed.unfinished
    earlier = checkpoint.facts if checkpoint else {}
    for name, key in ((settings.compare_with, "compared"), (settings.model, "before")):
        if name and earlier.get(key):
            measured.setdefault(name, earlier[key])
    compared = _compared(settings, job.data, job.load, measured, target.model)
    if settings.model not in measured and not job.in_shards:
        measured[settings.model] = measure(target.model, target.tokenizer, job.data, settings, judge=target.model)
    return compared


def _train(job: _Job, target: Any, compared: dict[str, Any] | None, from_level: Any) -> Any:
    """Train the target, or LoRA factors on it; returns the trainer, its weights rounded to the format they are saved in."""
    import torch

    from expunge.models import changed, formats

    settings, method, data, measured, this = job.settings, job.method, job.data, job.measured, job.checkpointed

    def before_first_step(trainer: Any) -> float | None:
        """In shards the target is measured when the trainer has sharded it; an adapter does nothing yet."""
        if settings.model not in measured:
            judge = trainer.model
            measured[settings.model] = measure(judge, target.tokenizer, data, settings, alone=True, judge=judge)
        this.known["model_files"] = changed.stamps(settings.model)
        this.known |= {"model": target.fingerprint, "before": measured[settings.model], "compared": compared}
        return train.start_loss_of(method, measured[settings.model]["figures"])

    trainer = train.train(
        train.prepare(target.model, settings, method),
        target.tokenizer,
        data,
        method,
        job.args,
        callbacks=job.inputs.callbacks,
        plan=unfinished.plan(job.folder, settings, this),
        begin=this.unfinished.place if this.unfinished else None,
        first=before_first_step,
        settings=settings,
        level=from_level,
    )
    if settings.dtype != settings.loaded:
        formats.round_to(trainer.model, getattr(torch, settings.dtype))  # as they are saved; what is measured is saved
    with contextlib.suppress(OSError):
        (job.folder / "checkpoints").rmdir()  # empty unless the user asked for checkpoints
    return trainer


def _measure_after(job: _Job, trainer: Any, tokenizer: Any) -> Any:
    """The figures of the trained model; where there are none nothing is left to go on from."""
    try:
        return outcome.measured(
            trainer, lambda: measure(trainer.model, tokenizer, job.data, job.settings, alone=job.together)
        )
    except RunFailed:
        unfinished.discard(job.folder)
        raise


def _compared(
    settings: Recipe, data: Data, load: Callable[[str], Any], measured: dict[str, dict[str, Any]], judge: Any
) -> dict[str, Any] | None:
    """What is measured of the third model, which is gone again before training starts; ``judge``: the model before."""
    name = settings.compare_with
    if name and name not in measured:
        third = load(name)
        template.attach(third.tokenizer, data.rendering)
        measured[name] = measure(third.model, third.tokenizer, data, settings, judge=judge)
    return measured[name] if name else None
