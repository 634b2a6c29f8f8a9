"""The end of a run: the trained model is written and read again, and the record of it all is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge import record
from expunge.method import Method
from expunge.unlearning import describe, fluency, level, outcome, store, train, unfinished
from expunge.unlearning.finish import finish
from expunge.unlearning.measure import answers_shown, measure, unmoved
from expunge.unlearning.result import Result
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

CHAIN = 4  # times lora.r: the rank up to which adapters on adapters add up


@dataclass(frozen=True)
class Trained:
    """A model after training, and what its record says of how it came to be."""

    net: Any
    target: Any
    trainer: Any
    method: Method
    data: Data
    args: Any
    before: dict[str, Any]
    after: dict[str, Any]
    compared: dict[str, Any] | None
    parent: Any
    warnings: list[str]
    command: str | None
    start: Callable[[Any], Any]  # loads the model before once more, onto a device


def conclude(trained: Trained, settings: Recipe, folder: Path, run: unfinished.Run) -> Result:
    """Write the model and the record into ``folder``; ``run`` knows the parts that the run was carried out in.

    Raises RunFailed, with the record, where training broke down or the files are not what they should be.
    """
    from expunge import models

    net, target, data, trainer = trained.net, trained.target, trained.data, trained.trainer
    chain = None
    if settings.adapter and not settings.merge:
        chain = models.chained(models.adapter_of(net), target, settings.max_rank or CHAIN * settings.lora.r)
    stored = store.store(partial(_write, net, target, settings, chain), folder, record.LAYOUT)
    compute = train.compute_dtype(settings, trained.method)
    again = store.reload(
        stored.path, net, target.tokenizer, data, settings, compare=not (chain and chain.lost), compute=compute
    )
    final, after = net, trained.after
    if chain and chain.lost and again.model:
        final = again.model
        after = measure(final, target.tokenizer, data, settings, alone=True)  # of what was cut
    else:
        again = replace(again, model=None)  # so that there is room for the model before
    figures, language = fluency.conclude(after, trained.before, net, trained.start, target.tokenizer, data, settings)
    after = {**after, "figures": figures}
    failed = outcome.failed(trainer, stored.path)
    problems = [p for p in (failed, stored.problem, again.problem, trainer.keeper.saved.problem) if p]
    parts = run.parts()
    log = _log(trained, settings) | {
        "output": describe.describe_output(stored.path, again, chain, settings),
        "after": after["figures"],
        "examples": answers_shown(data, settings, trained.before, after, trained.compared),
        "seconds": sum(part["seconds"] for part in parts),
        "parts": parts,
        "warnings": [
            *data.warnings,
            *trained.warnings,
            *trainer.warnings,
            *(chain.warnings if chain else ()),
            *language,
            *again.warnings,
            *unmoved(trained.before["figures"], after["figures"], trained.method.parameters),
            *outcome.useless(after, trained.before, net),
            *problems,
        ],
    }
    if failed:
        log["failed"] = failed
    try:
        return finish(Result(final, target.tokenizer, log, stored.folder), problems)
    finally:
        if (stored.folder, (folder / record.FILE).exists()) == (folder, True):
            unfinished.discard(folder)


def _log(trained: Trained, settings: Recipe) -> dict[str, Any]:
    """What the record says of the command, the method, the data and the training."""
    method, data, trainer = trained.method, trained.data, trained.trainer
    compared = trained.compared
    return {
        "command": record.renamed(trained.command, settings.names),
        "title": settings.title,
        "method": describe.describe(method),
        "model": describe.describe_model(trained.target, trained.net, settings)
        | {"trains": settings.trainable or method.trainable},
        "parent": trained.parent,
        "data": {
            s: describe.describe_data(describe.source_of(s, settings, method), rows, settings) | describe.used(data, s)
            for s, rows in data.given.items()
        },
        "training": describe.describe_training(trained.args, trainer.state.max_steps, method.optimizer)
        | describe.stopped(trainer)
        | describe.reference(trainer)
        | describe.shared(),
        **describe.watched(trainer, level.described(settings)),
        "reading": describe.reading(settings, trained.target.tokenizer),
        "seed": settings.seed,
        "device": str(trainer.args.device),
        "steps": describe.steps(trainer.state.log_history),
        "tokens": describe.tokens(trainer),
        "before": trained.before["figures"],
        "reference": compared["figures"] if compared else None,
        "reference_name": settings.compare_name or settings.compare_with,
    }


def _write(net: Any, target: Any, settings: Recipe, chain: Any, place: Path) -> Path:
    """Save ``net`` to ``place``: whole, as an adapter, or as the one adapter of a ``chain``."""
    import torch

    from expunge import models
    from expunge.models import formats

    if chain and chain.adapter:
        return models.save_adapter(chain.adapter, net, target.tokenizer, place, base=replace(target, adapter=None))
    with formats.in_format(net, getattr(torch, settings.dtype) if settings.dtype != settings.loaded else None):
        return models.save(net, target.tokenizer, place, base=target, merge=settings.merge or chain is not None)
