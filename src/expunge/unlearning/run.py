"""Three lines for a user: ``unlearn(model, forget=…, retain=…, method=…)`` gives the unlearned model and its record."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge import outputs, record
from expunge.data import template
from expunge.errors import InputError
from expunge.method import Method
from expunge.unlearning import describe, outcome, store, train
from expunge.unlearning import settings as recipe
from expunge.unlearning.finish import finish
from expunge.unlearning.given import NOTHING, Given, from_python, one_display, with_gradients
from expunge.unlearning.measure import answers_shown, measure, unmoved
from expunge.unlearning.ready import ready
from expunge.unlearning.result import Result as Result
from expunge.unlearning.rows import Data, with_alternates
from expunge.unlearning.settings import Recipe

logger = logging.getLogger(__name__)
CHAIN = 4  # times lora.r: the rank up to which adapters on adapters add up


def unlearn(
    model: Any,
    *,
    forget: Any,
    retain: Any = None,
    method: str | Method = "pdu",
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
    value such as ``methods.blur_npo(beta=0.1)``.
    ``adapter="lora"`` trains LoRA factors and saves the adapter.  ``optimizer="sophia"`` makes the steps second-order, with
    ``optimizer_parameters={"rho": …}``; left out it is the method's, AdamW as a rule.  ``settings`` are fields of
    :class:`expunge.unlearning.settings.Recipe`, or of ``transformers.TrainingArguments`` by name (``learning_rate=…``; for
    three there is a short name, ``lr``, ``epochs`` and ``batch_size``).

    Raises :class:`~expunge.errors.InputError` for anything in the input that a person has to mend, before the model is
    loaded wherever that is possible, and :class:`~expunge.errors.RunFailed` for a run that began and broke down, or whose
    weights could not be saved where they belong; what was written all the same is its ``result``.
    """
    chosen, given = from_python(model, tokenizer, callbacks, settings | {"adapter": adapter})
    place = os.fspath(out) if isinstance(out, os.PathLike) else out
    values = {"forget": forget, "retain": retain, "out": place, **chosen}
    own = None if isinstance(method, str) else method
    if own is not None and not isinstance(own, Method):
        called = f"call it, methods.{own.__name__}()" if callable(own) and hasattr(own, "__name__") else "give a name"
        raise InputError(f"method is a {type(own).__name__} and no Method; {called}")
    values |= {"method": method} if own is None else {"method": own.name, "parameters": dict(own.parameters)}
    with one_display(), with_gradients():
        done = run(recipe.make(values), method=own, given=given)
    for warning in done.record["warnings"]:
        logger.warning(warning)
    return done


def run(
    settings: Recipe,
    *,
    method: Method | None = None,
    command: str | None = None,
    measured: dict[str, dict[str, Any]] | None = None,
    given: Given = NOTHING,
) -> Result:
    """Carry out a recipe.

    ``method`` stands in for the recipe's name and parameters when it is a value of the user's.  ``measured`` keeps what was
    measured of each model by name, so several runs on the same data measure the target once.  ``given``: what is in memory.
    """
    measured = {} if measured is None else measured
    began = time.monotonic()
    prepared = ready(settings, method, given)
    with outputs.claimed(settings.out, record.LAYOUT, overwrite=settings.overwrite) as folder:
        return _carried_out(settings, *prepared, folder, command, measured, began, given)


def _carried_out(
    settings: Recipe,
    method: Method,
    data: Data,
    args: Any,
    folder: Path,
    command: str | None,
    measured: dict[str, dict[str, Any]],
    began: float,
    given: Given,
) -> Result:
    """What :func:`run` does after :func:`ready`, in a folder that is this process's alone."""
    import torch

    from expunge import models
    from expunge.evaluation.collect import leave
    from expunge.forward.family import is_sharded
    from expunge.training import finite, sharded

    cut = sharded.switched_on(args)
    if cut:  # no device need hold the whole model
        settings = settings.model_copy(update={"device": "cpu"})
    load = partial(
        models.load,
        dtype=getattr(torch, settings.dtype),
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )
    target = given.load(settings) or load(settings.model)
    finite.check_model(target.model, settings.model)
    template.attach(target.tokenizer, data.rendering)
    parent, parent_warnings = describe.parent_of(settings, target.fingerprint)
    method = train.fit(method, target.model, target.tokenizer, data)
    train.check_fit(target.model, settings, method)
    if method.alternate == "generated":
        data = with_alternates(data, target, settings, folder)
    if settings.compare_with and settings.compare_with not in measured:
        third = load(settings.compare_with)  # gone again before training starts
        template.attach(third.tokenizer, data.rendering)
        measured[settings.compare_with] = measure(third.model, third.tokenizer, data, settings)
        del third
    compared = measured[settings.compare_with] if settings.compare_with else None
    if settings.model not in measured and not cut:
        measured[settings.model] = measure(target.model, target.tokenizer, data, settings)

    def first(trainer: Any) -> float | None:
        """In shards the target is measured when the trainer has cut it; an adapter does nothing yet."""
        if settings.model not in measured:
            measured[settings.model] = measure(trainer.model, target.tokenizer, data, settings, alone=cut)
        return train.start_loss_of(method, measured[settings.model]["figures"])

    net = train.prepare(target.model, settings, method)
    trainer = train.train(
        net,
        target.tokenizer,
        data,
        method,
        args,
        callbacks=given.callbacks,
        first=first,
    )
    before = measured[settings.model]
    with contextlib.suppress(OSError):
        (folder / "checkpoints").rmdir()  # empty unless the user asked for checkpoints
    after = outcome.measured(trainer, lambda: measure(trainer.model, target.tokenizer, data, settings, alone=cut))
    net = trainer.gathered()
    if is_sharded(net):  # the main process has it whole, saves it and writes the record
        trainer.accelerator.wait_for_everyone()
        leave()
        return Result(net, target.tokenizer, record.read(folder), folder)
    chain = None
    if settings.adapter and not settings.merge:
        chain = models.chained(models.adapter_of(net), target, settings.max_rank or CHAIN * settings.lora.r)
    stored = store.store(partial(_write, net, target, settings, chain), folder, record.LAYOUT)
    trainer.accelerator.wait_for_everyone()
    again = store.reload(stored.path, net, target.tokenizer, data, settings, compare=not (chain and chain.lost))
    final = net
    if chain and chain.lost and again.model:
        final = again.model
        after = measure(final, target.tokenizer, data, settings)  # of what was cut
    failed = outcome.failed(trainer, stored.path)
    problems = [p for p in (failed, stored.problem, again.problem) if p]
    log = {
        "command": record.renamed(command, settings.names),
        "title": settings.title,
        "method": describe.describe(method),
        "model": describe.describe_model(target, net, settings) | {"trains": settings.trainable or method.trainable},
        "parent": parent,
        "output": describe.describe_output(stored.path, again, chain, settings),
        "data": {
            s: describe.describe_data(getattr(settings, s, method.alternate), rows, settings) | describe.used(data, s)
            for s, rows in data.given.items()
        },
        "training": describe.describe_training(args, trainer.state.max_steps, method.optimizer)
        | describe.stopped(trainer),
        "reading": describe.reading(settings, target.tokenizer),
        "seed": settings.seed,
        "device": str(trainer.args.device),
        "steps": describe.steps(trainer.state.log_history),
        "tokens": describe.tokens(trainer),
        "before": before["figures"],
        "after": after["figures"],
        "reference": compared["figures"] if compared else None,
        "reference_name": settings.compare_name or settings.compare_with,
        "examples": answers_shown(data, settings, before, after, compared),
        "seconds": time.monotonic() - began,
        "warnings": [
            *data.warnings,
            *parent_warnings,
            *trainer.warnings,
            *(chain.warnings if chain else ()),
            *again.warnings,
            *unmoved(before["figures"], after["figures"], method.parameters),
            *outcome.useless(after, before, net),
            *problems,
        ],
    } | ({"failed": failed} if failed else {})
    done = finish(Result(final, target.tokenizer, log, stored.folder), problems)
    if cut:
        leave()
    return done


def _write(net: Any, target: Any, settings: Recipe, chain: Any, place: Path) -> Path:
    """Save ``net`` to ``place``: whole, as an adapter, or as the one adapter of a ``chain``."""
    from expunge import models

    if chain and chain.adapter:
        return models.save_adapter(chain.adapter, net, target.tokenizer, place, base=replace(target, adapter=None))
    return models.save(net, target.tokenizer, place, base=target, merge=settings.merge or chain is not None)
