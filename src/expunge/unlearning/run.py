"""Three lines for a user: ``unlearn(model, forget=…, retain=…, method=…)`` gives the unlearned model and its record."""

from __future__ import annotations

import contextlib
import datetime
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge import __version__, files, losses, record
from expunge.combine import complete
from expunge.data import chat, check, collate, refusals, sources, streams
from expunge.data.example import Example, Row
from expunge.errors import InputError
from expunge.method import Method, build
from expunge.models.tokenizer import load_tokenizer
from expunge.unlearning import describe as about
from expunge.unlearning import settings as recipe
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Result:
    """The unlearned model in memory, its tokenizer, the record, and the folder that holds all three."""

    model: Any
    tokenizer: Any
    record: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Data:
    """Rows and their tokens, by stream; ``warnings`` of the checks."""

    rows: Mapping[str, list[Row]]
    examples: Mapping[str, list[Example]]
    warnings: list[str]


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
    looked: dict[str, dict[str, Any]] | None = None,
) -> Result:
    """Carry out a recipe.

    ``method`` stands in for the recipe's name and parameters when it is a value of the user's.  ``looked`` keeps what was
    measured of each model by name, so several runs on the same data measure the target once.
    """
    looked = {} if looked is None else looked
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
    check_fit(target.model, settings, method)
    if method.alternate == "generated":
        data = with_alternates(data, target, settings, folder)
    if settings.compare_with and settings.compare_with not in looked:
        third = load(settings.compare_with)  # gone again before training starts
        looked[settings.compare_with] = look(third.model, third.tokenizer, data, settings)
        del third
    compared = looked[settings.compare_with] if settings.compare_with else None
    before = looked.get(settings.model) or look(target.model, target.tokenizer, data, settings)
    looked[settings.model] = before

    net = prepare(target.model, settings, method)
    trainer = train(net, target.tokenizer, data, method, args, start_loss=_start_loss(method, before["figures"]))
    try:
        after = look(net, target.tokenizer, data, settings)
    except InputError as error:  # a model that was destroyed is saved and told, not lost
        after = {"figures": {}, "answers": {}}
        trainer.warnings.append(f"the unlearned model cannot be measured: {error}")

    with contextlib.suppress(OSError):
        (folder / "checkpoints").rmdir()  # empty unless the user asked for checkpoints
    saved = models.save(net, target.tokenizer, folder / "model", base=target, merge=settings.merge)
    log = {
        "command": record.renamed(command, settings.names),
        "title": settings.title,
        "method": about.describe(method),
        "model": about.describe_model(target, net, settings) | {"trains": settings.trainable or method.trainable},
        "output": {"path": "model", "fingerprint": files.sha256_folder(saved, "*.safetensors")},
        "data": {
            s: about.describe_data(getattr(settings, s, method.alternate), rows, settings)
            for s, rows in data.rows.items()
        },
        "training": about.describe_training(args, trainer.state.max_steps, method.optimizer) | about.stopped(trainer),
        "seed": settings.seed,
        "device": str(trainer.args.device),
        "steps": about.steps(trainer.state.log_history),
        "tokens": about.tokens(trainer),
        "before": before["figures"],
        "after": after["figures"],
        "reference": compared["figures"] if compared else None,
        "reference_name": settings.compare_name or settings.compare_with,
        "examples": answers_shown(data, settings, before, after, compared),
        "seconds": time.monotonic() - began,
        "warnings": [*data.warnings, *trainer.warnings],
    }
    return Result(net, target.tokenizer, write(log, folder), folder)


def ready(settings: Recipe, method: Method | None = None) -> tuple[Method, Data, Any]:
    """The method, the data and the ``TrainingArguments`` of a run of which all is in order that needs no model.

    Raises InputError for what a person has to mend; writes nothing.
    """
    method = method_of(settings, method)
    folder = record.check_folder(settings.out, overwrite=settings.overwrite)
    raw = load_rows(settings, method)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    data = encode(raw, tokenizer, settings)
    return method, data, training_arguments(settings, method, len(raw["forget"]), folder)


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


# -- data -----------------------------------------------------------------------------------------------------------------
def load_rows(settings: Recipe, method: Method) -> dict[str, list[Row]]:
    """The rows of the streams that ``method`` reads, alternates included; retain also when it is only measured."""
    rows = {"forget": sources.load_rows(settings.forget, limit=settings.limit)}
    if settings.retain is not None:
        rows["retain"] = sources.load_rows(settings.retain, limit=settings.limit)
    elif "retain" in method.streams:
        raise InputError(f"the method {method.name} protects a retain set; give one with --retain")
    if settings.holdout is not None:
        from expunge.training import stopping

        stopping.check(method)
        rows["holdout"] = sources.load_rows(settings.holdout, limit=settings.limit)
    if method.alternate == "generated":
        from expunge.unlearning import alternates as generating

        generating.check(rows["forget"], method.name)  # the model that writes them is not loaded yet
    elif method.alternate:
        rows["alternate"] = alternates(rows["forget"], method, settings.seed)
    return rows


def alternates(forget: Sequence[Row], method: Method, seed: int) -> list[Row]:
    """The forget rows with the answer that is to be preferred: a given one, the method's refusal, or one by (seed, row)."""
    if method.alternate == "refusal":
        return [replace(r, answer=method.refusal or refusals.refusal(seed, i)) for i, r in enumerate(forget)]
    missing = [r.where for r in forget if not r.alternate]
    if missing:
        raise InputError(
            f"{method.name} needs the column 'alternate' in every forget row; {missing[0]} and {len(missing) - 1} others "
            "have none (idk_dpo uses refusals instead)"
        )
    return [replace(r, answer=r.alternate or "") for r in forget]


def encode(raw: Mapping[str, list[Row]], tokenizer: Any, settings: Recipe) -> Data:
    """Check the rows and turn them into tokens."""
    warnings = check.check(
        raw["forget"],
        raw.get("retain"),
        holdout=raw.get("holdout"),
        tokenizer=tokenizer,
        max_length=settings.max_length,
        chat_template=settings.chat_template,
    )
    options: dict[str, Any] = {"max_length": settings.max_length, "chat_template": settings.chat_template}
    examples = {s: [chat.encode(r, tokenizer, **options) for r in rows] for s, rows in raw.items()}
    return Data(raw, examples, warnings)


def with_alternates(data: Data, target: Any, settings: Recipe, folder: Path) -> Data:
    """``data`` with the stream "alternate", of answers that the target model makes up or has made up for this folder."""
    from expunge.unlearning import alternates as generating

    rows, warnings = generating.kept(
        data.rows["forget"], target, folder, seed=settings.seed, chat_template=settings.chat_template
    )
    options: dict[str, Any] = {"max_length": settings.max_length, "chat_template": settings.chat_template}
    examples = [chat.encode(r, target.tokenizer, **options) for r in rows]
    return Data({**data.rows, "alternate": rows}, {**data.examples, "alternate": examples}, [*data.warnings, *warnings])


# -- training -------------------------------------------------------------------------------------------------------------
def training_arguments(settings: Recipe, method: Method, forget_rows: int, folder: Path) -> Any:
    """The run's ``TrainingArguments``: suited defaults under what the user gave."""
    from expunge.training import arguments as training
    from expunge.training import curvature

    suited = training.defaults(method, forget_rows, lora=settings.adapter == "lora")
    args = training.arguments(settings.training, suited, folder / "checkpoints", settings.seed)
    if method.optimizer:
        curvature.check(method.optimizer, method.combine, args)
    return args


def check_fit(model: Any, settings: Recipe, method: Method) -> None:
    """Raise InputError for a layer or for weights that ``model`` does not have, before anything is measured."""
    from expunge import models
    from expunge.forward import layers
    from expunge.training import reference

    if what := reference.layer_read(method.objectives):
        with layers.up_to(model, what.layer):
            pass
    if pattern := _chosen(settings, method):
        (models.linear_layers if settings.adapter == "lora" else models.train_only)(model, pattern)


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
        lora["target_modules"] = models.linear_layers(model, pattern)
    return models.attach_lora(model, **lora, seed=settings.seed)


def _chosen(settings: Recipe, method: Method) -> str | None:
    """The regular expression on what trains: the user's, or the method's unless the user gave LoRA's target_modules."""
    lora = settings.adapter == "lora" and "target_modules" in settings.lora.model_fields_set
    return settings.trainable or (None if lora else method.trainable)


def train(net: Any, tokenizer: Any, data: Data, method: Method, args: Any, *, start_loss: float | None = None) -> Any:
    """Train ``net`` in place; returns the trainer, whose state holds the log."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from expunge.training.progress import ProgressLine
    from expunge.training.trainer import UnlearningTrainer

    window = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    dataset = streams.PairedDataset({s: data.examples[s] for s in method.streams}, seed=args.seed, window=window)
    trainer = UnlearningTrainer(
        model=net,
        args=args,
        train_dataset=dataset,
        data_collator=partial(collate.collate, pad_id=tokenizer.pad_token_id),
        method=method,
        start_loss=start_loss,
        holdout=data.examples.get("holdout"),
        callbacks=[ProgressLine()],
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    return trainer


def _start_loss(method: Method, before: Mapping[str, Mapping[str, float]]) -> float | None:
    """The second objective before training, where the figures hold it and need not be exact; None where they do not."""
    second = list(method.objectives.values())[1:2]
    plain = [o.loss is losses.nll and o.on == ("retain",) for o in second] == [True]
    return before["retain"]["nll"] if plain and not complete(method.combine).needs_start else None


# -- figures --------------------------------------------------------------------------------------------------------------
def evenly(rows: Sequence[Any], n: int) -> list[Any]:
    """At most ``n`` of ``rows``, evenly spaced: every n-th sees every part of a sorted file."""
    return list(rows) if len(rows) <= n else [rows[i * len(rows) // n] for i in range(n)]


def look(net: Any, tokenizer: Any, data: Data, settings: Recipe) -> dict[str, Any]:
    """Figures of the forget and the retain set, and answers if the user wants examples."""
    from tqdm.auto import tqdm

    from expunge.evaluation.collect.one_pass import collect
    from expunge.evaluation.figures import figures, probes

    sets = {name: evenly(data.rows[name], settings.eval_rows) for name in ("forget", "retain") if name in data.rows}
    asked = []
    for name, rows in sets.items():
        shown = evenly(range(len(rows)), settings.examples)
        asked += probes(name, rows, shown, settings.max_new_tokens)
    total = sum(len(p.texts) + bool(p.ask) for p in asked)
    quiet = str(settings.training.get("disable_tqdm", False)).lower() == "true"
    with tqdm(total=total, desc=f"measuring the {' and the '.join(sets)} set", leave=False, disable=quiet) as bar:
        found = collect(
            net,
            tokenizer,
            asked,
            max_length=settings.max_length,
            chat_template=settings.chat_template,
            progress=bar.update,
        )
    answers = {name: [a.text for a in found.generated(name)] for name in sets} if settings.examples else {}
    return {"figures": {name: figures(found, name) for name in sets}, "answers": answers}


def answers_shown(
    data: Data,
    settings: Recipe,
    before: dict[str, Any],
    after: dict[str, Any],
    compared: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """The rows that are shown, with what each model answered."""
    out = []
    for name, answers in before["answers"].items():
        rows = evenly(evenly(data.rows[name], settings.eval_rows), settings.examples)
        for i, row in enumerate(map(chat.split_prompt, rows)):
            out.append(
                {
                    "set": name,
                    "question": chat.question(row),
                    "expected": row.answer,
                    "before": answers[i],
                    "after": after["answers"][name][i] if after["answers"] else None,
                    "reference": compared["answers"][name][i] if compared else None,
                }
            )
    return out
