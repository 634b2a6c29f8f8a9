"""The loop of a release: train two modules, subtract and add them, look, and stop while the model is still of use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

from expunge import files, models, outputs, processes, record
from expunge.data.example import Row
from expunge.data.sources import fingerprint, load_rows
from expunge.errors import InputError
from expunge.models.lora import Adapter, Truncated, compress, concatenate, rank_of, scaled
from expunge.models.tokenizer import load_tokenizer
from expunge.release import describe as about
from expunge.release import modules, steps
from expunge.release.measure import (
    Measurement,
    MeasureModel,
    budget,
    compared,
    default_measurement,
    inside,
    loaded,
    measure_function,
    print_step,
    stopped,
)
from expunge.release.settings import Release, make
from expunge.release.steps import Step, updates
from expunge.settings import name_of
from expunge.training import finite, signals
from expunge.unlearning import describe as about_run
from expunge.unlearning import store
from expunge.unlearning.conclude import CHAIN
from expunge.unlearning.finish import finish
from expunge.unlearning.measure import answers_shown
from expunge.unlearning.ready import check_hardware, inputs_of, space
from expunge.unlearning.result import Result
from expunge.unlearning.resumable import discard
from expunge.unlearning.rows import Data, encode, load

# What decides a step: of the loop, and of the run.  How many steps, the budget and how the result is saved do not.
DECIDES = ("forget_coefficient", "retain_coefficient", "orthogonality", "self_retain")
DECIDES_OF_RUN = ("lora", "seed", "max_length", "chat_template", "eval_rows", "examples", "max_new_tokens")


def release(
    model: str,
    *,
    forget: Any,
    retain: Any = None,
    out: str | Path = "unlearned",
    look: Measurement | None = None,
    **settings: Any,
) -> Result:
    r"""Make ``model`` forget ``forget`` step by step; writes ``out`` and returns what it wrote.

    .. math:: W_{t+1} = W_t - \eta_f\, s B_f A_f + \eta_r\, s B_r A_r

    in fp32, with fresh LoRA modules each step that are trained on top of :math:`W_t`: the forget module on the forget rows,
    the retain module (if there are retain rows) on those, the forget module's A pushed to be orthogonal to the retain
    module's.  Subtracting what *lowers* the forget loss is the negation of a task vector, no gradient ascent.  After each
    step the model is measured; the first step that breaks ``utility_budget`` ends it, and the last one inside is the result.

    ``settings``: fields of :class:`~expunge.release.Release`, of :class:`~expunge.unlearning.settings.Recipe` (``seed``,
    ``lora``, ``merge``, …), or of ``transformers.TrainingArguments`` for the modules' training.  ``look`` measures something
    of your own in place of what ``expunge run`` measures.  A run that was interrupted goes on after its last whole step, and
    within a module's training from its checkpoint (``save_every``).

    Raises :class:`~expunge.errors.InputError` for anything in the input that a person has to mend.  The paper's coefficients
    are not known here; all defaults are ours.  Reveal and Release 2025, arXiv:2509.14624; O-LoRA: arXiv:2310.14152.
    """
    values = {"model": name_of(model), "forget": forget, "retain": retain, "out": str(out), **settings}
    return run(make(values), look=look)


def run(settings: Release, *, look: Measurement | None = None, command: str | None = None) -> Result:
    """Carry out a release."""
    processes.check_one("a release")
    processes.check_count(settings.run.processes)
    with signals.caught():
        prepared = ready(settings)
        with outputs.claimed(settings.run.out, record.LAYOUT, overwrite=settings.run.overwrite) as folder:
            return _carried_out(settings, *prepared, folder, look, command)


def _carried_out(
    settings: Release,
    data: Data,
    watched: list[Row],
    args: Any,
    folder: Path,
    look: Measurement | None,
    command: str | None,
) -> Result:
    """What :func:`run` does after :func:`ready`, in a folder that is this process's alone."""
    began, plan = time.monotonic(), settings.run
    raw = dict(data.given)
    work = folder / "checkpoints"

    target = _load(settings, args.device)
    finite.check_model(target.model, plan.model)
    parent, parent_warnings = about_run.parent_of(plan, target.fingerprint)
    tokenizer = target.tokenizer
    _check_modules(target.model, settings)
    key = identity(settings, target.fingerprint, raw, watched, look)
    past = _past(folder / steps.FOLDER, key, overwrite=plan.overwrite, fresh=plan.fresh)[: settings.steps + 1]
    if settings.self_retain:
        raw["retain"] = _neutral_rows(target, settings, folder / steps.FOLDER, again=not past)
        data = encode(raw, tokenizer, plan, data.warnings)
    measure_model = measure_function(look, tokenizer, data, settings, watched)
    chosen = look or default_measurement(settings, raw)
    third = compared(settings, measure_model, args.device)
    taken = sum(s.seconds for s in past)  # by an earlier, interrupted run
    for update in updates(past):
        models.add(target.model, update)
    if not past:
        past = [Step(0, **measure_model(target.model))]
        steps.write(past[0], folder / steps.FOLDER, key)
    limit = budget(past[0], settings, chosen)
    while (ended := stopped(past, settings, chosen, limit)) is None:
        past.append(_step(target.model, tokenizer, data, settings, len(past), work, measure_model, key))
        steps.write(past[-1], folder / steps.FOLDER, key)
        discard(work.glob("[0-9]*-*"))
        print_step(past[-1], chosen, settings)
    kept, reason, last = ended
    reached, past = len(past) - 1, past[: last + 1]

    change, lost = _sum(past, kept, settings)
    chain = (
        None
        if plan.merge
        else models.chained(change, target, settings.rank or plan.max_rank or CHAIN * rank_of(change))
    )
    if lost or kept < reached:  # start again, for adding what was subtracted leaves round-off
        del target
        target = _load(settings, args.device, [change] if lost else updates(past[: kept + 1]))
    after: dict[str, Any] = (
        measure_model(target.model) if lost else {"figures": past[kept].figures, "answers": past[kept].answers}
    )
    net = target.model.eval().requires_grad_(True)
    _sweep(work)
    if plan.merge or (chain and not chain.adapter):
        write_to = partial(models.save, net, tokenizer)
    else:
        whole = chain.adapter if chain and chain.adapter else change
        write_to = partial(models.save_adapter, whole, net, tokenizer, base=replace(target, adapter=None))
    stored = store.store(write_to, folder, record.LAYOUT)
    again = store.reload(stored.path, net, tokenizer, data, plan, compare=not (chain and chain.lost))
    if chain and chain.lost and again.model:
        net = again.model
        after = measure_model(net)  # of what was cut
    failed = {} if past[-1].figures else {"failed": about.broke_down(kept, stored.path)}
    problems = [p for p in (failed.get("failed"), stored.problem, again.problem) if p]
    log = {
        "command": record.renamed(command, settings.names),
        "title": plan.title,
        "method": about.describe_method(settings, "retain" in raw),
        "model": about_run.describe_model(target, net, plan)
        | {"trainable": about.trainable(updates(past)[0], plan.lora.r)},
        "parent": parent,
        "output": about_run.describe_output(stored.path, again, chain, plan),
        "data": about.describe_data(settings, raw, watched, data),
        "training": about.describe_training(args, past),
        "reading": about_run.reading(plan, tokenizer),
        "seed": plan.seed,
        "device": str(args.device),
        "steps": about.log(past),
        "before": past[0].figures,
        "after": after["figures"],
        "reference": third["figures"] if third else None,
        "reference_name": plan.compare_name or plan.compare_with,
        "examples": answers_shown(data, plan, {"answers": past[0].answers}, after, third),
        "release": about.describe_release(past, kept, reason, settings, chosen, limit, lost),
        "seconds": time.monotonic() - began + taken,
        "warnings": [
            *data.warnings,
            *parent_warnings,
            *about.warnings(settings, "retain" in raw, chosen, kept, not inside(after["figures"], chosen, limit)),
            *(w for s in past for w in s.warnings),
            *(chain.warnings if chain else ()),
            *again.warnings,
            *problems,
        ],
    }
    return finish(Result(net, tokenizer, log | failed, stored.folder), problems)


def ready(settings: Release) -> tuple[Data, list[Row], Any]:
    """The data, the watched rows and the forget module's ``TrainingArguments``, when all that needs no model is in order.

    Raises InputError for what a person has to mend; writes nothing.
    """
    plan = settings.run
    warnings: list[str] = []
    raw = {s: load(v, plan, warnings) for s in ("forget", "retain") if (v := getattr(plan, s)) is not None}
    watched = load(settings.utility, plan, warnings) if settings.utility is not None else []
    tokenizer = load_tokenizer(plan.model, trust_remote_code=plan.trust_remote_code)
    data = encode(raw, tokenizer, plan, warnings)
    check_hardware(plan)
    inputs = inputs_of(plan) | {"utility rows": settings.utility}
    folder = outputs.check(plan.out, record.LAYOUT, inputs=inputs, overwrite=plan.overwrite)
    outputs.check_space(folder, space(plan))
    return data, watched, modules.arguments(settings, "forget", 1, len(data.rows["forget"]), folder / "checkpoints")


def planned(settings: Release) -> dict[str, Any]:
    """What :func:`run` would do; raises InputError as it does, and writes nothing."""
    data, watched, _ = ready(settings)
    written = {"retain": settings.self_retain} if settings.self_retain else {}
    return {
        "model": settings.run.model,
        "data": {name: len(rows) for name, rows in data.given.items()} | written | {"utility": len(watched)},
        "method": "release",
        "steps": settings.steps,
        "out": settings.run.out,
    }


# -- before the first step ------------------------------------------------------------------------------------------------
def identity(
    settings: Release, model: str, raw: Mapping[str, Any], watched: Sequence[Any], look: Measurement | None
) -> dict[str, Any]:
    """What decides the steps: settings, fingerprints of the start model and of the rows, and what is looked at."""
    from expunge.training.arguments import parse

    own, of_run = settings.model_dump(include=set(DECIDES)), settings.run.model_dump(include=set(DECIDES_OF_RUN))
    return {
        **own,
        **of_run,
        **({"template_arguments": given} if (given := settings.run.template_arguments) else {}),
        **({} if settings.run.dtype == "float32" else {"dtype": settings.run.dtype}),
        "training": {k: parse(k, v) for k, v in sorted(settings.run.training.items())},
        "model": model,
        "data": {f"{name} set": fingerprint(rows) for name, rows in raw.items()}
        | ({"utility": fingerprint(watched)} if watched else {}),
        "look": [look.forget, look.utility, look.name] if look else None,
    }


def _past(folder: Path, key: Mapping[str, Any], *, overwrite: bool, fresh: bool) -> list[Step]:
    """The steps of an interrupted run that can be gone on from; with ``fresh`` none."""
    files.private_folder(folder)
    if fresh:
        steps.discard(folder)
    try:
        return steps.read(folder, key)
    except InputError:
        if not overwrite:
            raise
    steps.discard(folder)
    return []


def _load(settings: Release, device: Any, updates: Sequence[Adapter] = ()) -> models.Loaded:
    """The target with ``updates`` added to its weights, one after the other."""
    target = loaded(settings.run.model, settings.run, device)
    for update in updates:
        models.add(target.model, update)
    return target


def _check_modules(net: Any, settings: Release) -> None:
    """Raise InputError where what a module learns could not be added to the weights."""
    _, empty = models.detach_lora(
        models.attach_lora(net, **models.without_experts(net, settings.run.lora.model_dump()))
    )
    models.adapted(net, empty)


def _neutral_rows(target: models.Loaded, settings: Release, folder: Path, *, again: bool) -> list[Any]:
    """Rows that the target writes itself; those of an interrupted run are read back."""
    file = folder / steps.ROWS
    if again or not file.exists():
        from expunge.generation.sample import neutral_rows

        n, plan = settings.self_retain, settings.run
        rows = neutral_rows(target.model, target.tokenizer, n, seed=plan.seed, chat_template=plan.chat_template)
        steps.write_rows(rows, file)
    return load_rows(file)


# -- the loop -------------------------------------------------------------------------------------------------------------
def _step(
    net: Any,
    tokenizer: Any,
    data: Data,
    settings: Release,
    at: int,
    work: Path,
    measure_model: MeasureModel,
    key: Mapping[str, Any],
) -> Step:
    """Take step ``at`` in place, and look."""
    began = time.monotonic()
    update, made = modules.update(net, tokenizer, data.examples, settings, at, work, key)
    warnings = [f"step {at}, {role} module: {w}" for role, m in made.items() for w in m.warnings]
    broken = [f"step {at}, {role} module: {m.broken}" for role, m in made.items() if m.broken]
    try:
        if broken:
            raise InputError(broken[0])
        models.add(net, update)
        found = measure_model(net)
    except InputError as error:  # a model that was destroyed ends the loop; the step before it is kept
        found = {"figures": {}, "answers": {}}
        warnings.append(f"the model cannot be measured after step {at}: {error}")
    log = [row | {"release_step": at, "module": role} for role, m in made.items() for row in m.log]
    return Step(
        at,
        update=update,
        penalty=made["forget"].penalty,
        seconds=time.monotonic() - began + sum(m.seconds for m in made.values()),
        optimizer_steps=made["forget"].steps,
        log=log,
        warnings=warnings,
        **found,
    )


def _sum(past: Sequence[Step], kept: int, settings: Release) -> tuple[Adapter, Truncated | None]:
    """The steps up to ``kept`` as one adapter, of a lower rank where the user asks for one, and what that cost."""
    if not kept:
        return scaled(updates(past)[0], 0.0), None  # PEFT has no empty adapter
    whole = reduce(concatenate, updates(past[: kept + 1]))
    if settings.run.merge or settings.rank is None or settings.rank >= rank_of(whole):
        return whole, None
    return compress(whole, settings.rank)


def _sweep(work: Path) -> None:
    """Remove folders of checkpoints that are empty, as they are unless the user asked for checkpoints."""
    for folder in (*work.glob("*-*"), work):
        with contextlib.suppress(OSError):
            folder.rmdir()
