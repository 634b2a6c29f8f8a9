"""Three lines for a user: ``unlearn(model, forget=…, retain=…, method=…)`` gives the unlearned model and its record."""

from __future__ import annotations

import contextlib
import datetime
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from expunge import __version__, files, record
from expunge.errors import InputError
from expunge.method import Method, build
from expunge.models.check import check_device, check_files
from expunge.models.locate import resolve
from expunge.models.tokenizer import check_tokens, load_tokenizer
from expunge.unlearning import describe, train
from expunge.unlearning import settings as recipe
from expunge.unlearning.measure import answers_shown, measure, unmoved
from expunge.unlearning.rows import Data, encode, load_streams, with_alternates
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Result:
    """The unlearned model in memory, its tokenizer, the record, and the folder that holds all three."""

    model: Any
    tokenizer: Any
    record: dict[str, Any]
    folder: Path


def unlearn(
    model: str,
    *,
    forget: Any,
    retain: Any = None,
    method: str | Method = "pdu",
    out: str | Path = "unlearned",
    adapter: str | None = None,
    **settings: Any,
) -> Result:
    """Make ``model`` forget ``forget`` and keep ``retain``; writes ``out`` and returns what it wrote.

    ``model``: hub id, folder, GGUF file or PEFT adapter folder.  ``forget``, ``retain``: a file, a folder, a hub name, a
    ``datasets.Dataset`` or a list of dicts.  ``method``: a name or a value such as ``methods.blur_npo(beta=0.1)``.
    ``adapter="lora"`` trains LoRA factors and saves the adapter.  ``optimizer="sophia"`` makes the steps second-order, with
    ``optimizer_parameters={"rho": …}``; left out it is the method's, AdamW as a rule.  ``settings`` are fields of
    :class:`expunge.unlearning.settings.Recipe`, or of ``transformers.TrainingArguments`` by name (``learning_rate=…``; for
    three there is a short name, ``lr``, ``epochs`` and ``batch_size``).

    Raises :class:`~expunge.errors.InputError` for anything in the input that a person has to mend, before the model is
    loaded wherever that is possible.
    """
    values = {"model": str(model), "forget": forget, "retain": retain, "out": str(out), "adapter": adapter, **settings}
    if isinstance(method, str):
        return run(recipe.make(values | {"method": method}))
    values |= {"method": method.name, "parameters": dict(method.parameters)}
    return run(recipe.make(values), method=method)


def run(
    settings: Recipe,
    *,
    method: Method | None = None,
    command: str | None = None,
    measured: dict[str, dict[str, Any]] | None = None,
) -> Result:
    """Carry out a recipe.

    ``method`` stands in for the recipe's name and parameters when it is a value of the user's.  ``measured`` keeps what was
    measured of each model by name, so several runs on the same data measure the target once.
    """
    measured = {} if measured is None else measured
    began = time.monotonic()
    method, data, args = ready(settings, method)
    folder = record.claim_folder(settings.out, overwrite=settings.overwrite)

    import torch

    from expunge import models

    load = partial(
        models.load,
        dtype=getattr(torch, settings.dtype),
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )
    target = load(settings.model)
    method = train.fit(method, target.model, target.tokenizer, data)
    train.check_fit(target.model, settings, method)
    if method.alternate == "generated":
        data = with_alternates(data, target, settings, folder)
    if settings.compare_with and settings.compare_with not in measured:
        third = load(settings.compare_with)  # gone again before training starts
        measured[settings.compare_with] = measure(third.model, third.tokenizer, data, settings)
        del third
    compared = measured[settings.compare_with] if settings.compare_with else None
    before = measured.get(settings.model) or measure(target.model, target.tokenizer, data, settings)
    measured[settings.model] = before

    net = train.prepare(target.model, settings, method)
    trainer = train.train(
        net, target.tokenizer, data, method, args, start_loss=train.start_loss_of(method, before["figures"])
    )
    try:
        after = measure(net, target.tokenizer, data, settings)
    except InputError as error:  # a model that was destroyed is saved and told, not lost
        after = {"figures": {}, "answers": {}}
        trainer.warnings.append(f"the unlearned model cannot be measured: {error}")

    with contextlib.suppress(OSError):
        (folder / "checkpoints").rmdir()  # empty unless the user asked for checkpoints
    saved = models.save(net, target.tokenizer, folder / "model", base=target, merge=settings.merge)
    log = {
        "command": record.renamed(command, settings.names),
        "title": settings.title,
        "method": describe.describe(method),
        "model": describe.describe_model(target, net, settings) | {"trains": settings.trainable or method.trainable},
        "output": {"path": "model", "fingerprint": files.sha256_folder(saved, "*.safetensors")},
        "data": {
            s: describe.describe_data(getattr(settings, s, method.alternate), rows, settings)
            for s, rows in data.rows.items()
        },
        "training": describe.describe_training(args, trainer.state.max_steps, method.optimizer)
        | describe.stopped(trainer),
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
            *trainer.warnings,
            *unmoved(before["figures"], after["figures"], method.parameters),
        ],
    }
    return Result(net, target.tokenizer, write(log, folder), folder)


def ready(settings: Recipe, method: Method | None = None) -> tuple[Method, Data, Any]:
    """The method, the data and the ``TrainingArguments`` of a run of which all is in order that needs no model.

    Raises InputError for what a person has to mend; writes nothing.
    """
    method = method_of(settings, method)
    folder = record.check_folder(settings.out, overwrite=settings.overwrite)
    raw = load_streams(settings, method)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    data = encode(raw, tokenizer, settings)
    check_device(settings.device)
    if settings.compare_with:
        check_files(resolve(settings.compare_with), trust_remote_code=settings.trust_remote_code)
    check_tokens(settings.model, tokenizer, (i for rows in data.examples.values() for e in rows for i in e.input_ids))
    return method, data, train.training_arguments(settings, method, len(raw["forget"]), folder)


def planned(settings: Recipe) -> dict[str, Any]:
    """What :func:`run` would do; raises InputError as it does, and writes nothing."""
    from expunge.training.arguments import total_steps

    method, data, args = ready(settings)
    return {
        "model": settings.model,
        "data": {name: len(rows) for name, rows in data.rows.items()},
        "method": method.name,
        "steps": total_steps(args, len(data.rows["forget"])),
        "out": settings.out,
    }


def write(log: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Stamp ``log`` with versions and write ``run.json`` and ``report.html`` into ``folder``."""
    from expunge.report import write_report

    stamped = {
        "schema": record.SCHEMA,
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **log,
        "versions": record.versions(),
        "platform": platform.platform(),
        "peak_memory_bytes": record.peak_memory_bytes(),
    }
    write_report(stamped, folder / "report.html")
    record.write(stamped, folder / "run.json")  # last: a folder with run.json is a whole run
    return stamped


def method_of(settings: Recipe, method: Method | None = None) -> Method:
    """The recipe's method, or ``method`` in its place, with the optimizer that the recipe asks for."""
    from expunge.training.arguments import optimized

    made = method or build(settings.method, settings.parameters)
    return optimized(made, settings.optimizer, settings.optimizer_parameters, settings.training)
