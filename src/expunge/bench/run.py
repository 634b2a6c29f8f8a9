"""A benchmark as one recipe: load or teach a target, unlearn what the benchmark says, measure before and after.

The folder of such a run holds ``figures.json`` and ``report.html`` (the target, the unlearned and the retrained model side
by side), ``scores/`` (what they said), ``run/`` (an ordinary run: its record and the unlearned model), and, where they were
taught here, ``target/`` and ``retrained/``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from expunge import outputs, processes, record
from expunge.bench.settings import Bench
from expunge.bench.teach import arguments, identity, is_finished, stamp, teach
from expunge.benchmarks import named
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.evaluation.benchmark import Benchmark, data_of, to_learn
from expunge.evaluation.custom import metrics
from expunge.evaluation.evaluate import LAYOUT, AnswersByModel, check_folder, evaluate, limited, read, with_defaults
from expunge.evaluation.probe import EvaluationOptions
from expunge.method import Method
from expunge.models.locate import resolve
from expunge.models.tokenizer import load_tokenizer
from expunge.report.bench_page import write_report
from expunge.training import signals
from expunge.unlearning import run as unlearning_run
from expunge.unlearning import settings as recipe
from expunge.unlearning import train, unfinished
from expunge.unlearning.python_inputs import PythonInputs
from expunge.unlearning.ready import method_of, space
from expunge.unlearning.rows import encode, load, load_streams
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Ready:
    """A benchmark run of which all is in order that can be checked without a model.

    ``folder``: where it goes; ``how``: with what the benchmark says where the user says nothing; ``plan``, ``rows``: of what
    trains, None and none where nothing does; ``method``: what unlearns.
    """

    settings: Bench
    chosen: Benchmark
    folder: Path
    how: EvaluationOptions
    plan: Recipe | None = None
    method: Method | None = None
    rows: Mapping[str, list[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class SharedResults:
    """What several runs on the same data share: ``measured`` as of ``unlearning.run``, ``asked`` as of ``evaluate``."""

    measured: dict[str, Any] = field(default_factory=dict)
    asked: AnswersByModel = field(default_factory=dict)


def run(settings: Bench, *, command: str | None = None) -> dict[str, Any]:
    """Carry out a benchmark run and return what its ``figures.json`` says; bad input is told before a model is loaded.

    Under several processes the main one returns it; the others return nothing.
    """
    with signals.caught():
        it = ready(settings)
        with outputs.claimed(it.folder, LAYOUT, overwrite=settings.overwrite):
            return carry_out(it, command=command)


def ready(settings: Bench, *, rows: Mapping[str, list[Row]] | None = None) -> Ready:
    """``settings`` with their data, checked; raises InputError for what a person has to mend.

    ``rows``: of an earlier run that differs in the method's parameters, training arguments and seed only, so that they need
    not be read and checked again.
    """
    processes.check_count(settings.run.get("processes"))
    chosen = named(settings.benchmark)
    metrics(settings.metric)
    inputs = {"model": settings.model, "data": settings.data, "retrained model": settings.retrained}
    folder = check_folder(settings.out, inputs=inputs, overwrite=settings.overwrite)
    how = with_defaults(settings.how, chosen)
    chosen.probes(data_of(chosen, settings.data))
    if settings.retrained:
        resolve(settings.retrained)
    if settings.teach_retrained and (settings.teach is None or settings.retrained):
        raise InputError("--teach-retrained needs --teach, and no --retrained beside it")
    if not settings.method and settings.teach is None:
        return Ready(settings, chosen, folder, how)
    plan = _plan(settings, chosen, how, folder)
    written = [*([space(plan)] * (1 + settings.teach_retrained) if settings.teach is not None else []), space(plan)]
    outputs.check_space(folder, sum(n for n in written if n))
    method = method_of(plan) if settings.method else None
    if rows is None or method is None:
        return Ready(settings, chosen, folder, how, plan, method, _check(settings, plan, method, folder))
    train.training_arguments(plan, method, len(rows["forget"]), folder / "run")
    return Ready(settings, chosen, folder, how, plan, method, rows)


def carry_out(
    it: Ready, *, command: str | None = None, shared: SharedResults | None = None, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """What :func:`run` does after :func:`ready`; ``shared`` keeps what was measured of models that several runs share.

    ``callbacks``: of ``transformers.Trainer``, for the unlearning.
    """
    settings, chosen, folder, plan, rows = it.settings, it.chosen, it.folder, it.plan, it.rows
    shared = shared or SharedResults()
    names, target, model, retrained = names_of(settings), settings.model, settings.model, settings.retrained
    about: dict[str, Any] = {"command": record.renamed(command, names)}
    if plan and settings.teach is not None:
        target = str(folder / "target")
        names |= _taught(settings, chosen, folder)
        base = plan.model_copy(update={"training": settings.teach, "merge": False, "trainable": None, "holdout": None})
        teach(_lesson(settings, chosen) or [*rows["forget"], *rows.get("retain", [])], base, folder / "target")
        if settings.teach_retrained:
            retrained = str(folder / "retrained")
            teach(rows["retain"], base, folder / "retrained")
        about["taught"] = {"source": names.get(settings.model, settings.model), "training": settings.teach}
    model = target
    if plan and it.method:
        plan = plan.model_copy(update={"model": target, "model_name": names.get(target)})
        said = _unlearned(plan, it.method, rows, about["command"], shared.measured, callbacks)
        about["unlearning"] = {k: said["method"][k] for k in ("name", "parameters", "paper", "status", "summary")}
        about["unlearning"] |= {"adapter": settings.run.get("adapter"), "steps": len(said["steps"])}
        about["unlearning"] |= {"seconds": said["seconds"], "record": "run/run.json", "warnings": said["warnings"]}
        model = str(folder / "run" / "model")
        names[model] = "run/model"
    if not evaluate(
        chosen,
        model,
        folder,
        data=settings.data,
        target=target if model != target else None,
        retrained=retrained,
        how=it.how,
        overwrite=True,  # ready() has checked
        defined_in=settings.benchmark if settings.benchmark.endswith(".py") else None,
        names=names,
        about=about,
        asked=shared.asked,
        metrics=settings.metric,
    ):
        return {}  # another process has it all
    said = read(folder)
    write_report(said, folder)
    return said


def planned(settings: Bench) -> dict[str, Any]:
    """What :func:`run` would do; raises InputError as it does, and writes nothing."""
    from expunge.training.arguments import total_steps

    it = ready(settings)
    asked = limited(it.chosen.probes(data_of(it.chosen, settings.data)), it.how.limit)
    if it.plan is None:
        load_tokenizer(settings.model, trust_remote_code=it.how.trust_remote_code, quantize=it.how.quantize)
    n = len(it.rows.get("forget", ()))
    args = train.training_arguments(it.plan, it.method, n, it.folder) if it.plan and it.method else None
    return {
        "benchmark": it.chosen.name,
        "model": settings.model,
        "data": {name: len(rows) for name, rows in it.rows.items()} | {"questions": len(asked)},
        "method": it.method.name if it.method else None,
        "steps": total_steps(args, n) if args else 0,
        "out": settings.out,
    }


def names_of(settings: Bench) -> dict[str, str]:
    """Path -> what is written in its place, where the user says so."""
    given = (
        (settings.model, settings.model_name),
        (settings.data, settings.data_name),
        (settings.retrained, settings.retrained_name),
    )
    return {place: name for place, name in given if place and name}


def _taught(settings: Bench, chosen: Benchmark, folder: Path) -> dict[str, str]:
    """What models are called that were taught here, if the base model has a name."""
    if not settings.model_name:
        return {}
    without = settings.retrained_name or f"{settings.model_name} taught {chosen.name} without the forget set"
    return {
        str(folder / "target"): f"{settings.model_name} taught {chosen.name}",
        str(folder / "retrained"): without,
    }


def _plan(settings: Bench, chosen: Benchmark, how: EvaluationOptions, folder: Path) -> Recipe:
    """The unlearning as an ordinary run, on what the benchmark says is forgotten and kept."""
    if chosen.forget is None:
        raise InputError(
            f"{chosen.name} does not say what is to be forgotten; unlearn with `expunge run`, "
            f"then measure with `expunge bench {settings.benchmark} --model OUT/model`"
        )
    sets = tuple(s for s in (chosen.forget, chosen.retain) if s is not None)
    places = data_of(dataclasses.replace(chosen, sets=sets), settings.data).places
    found = {
        kind: (s, places.get(s.name, ())) for kind, s in (("forget", chosen.forget), ("retain", chosen.retain)) if s
    }
    data = {k: str(v[0]) if len(v) == 1 and s.rows is None else s.to_learn(v) for k, (s, v) in found.items() if v}
    plan = recipe.make(
        {
            "eval_rows": how.limit or Recipe.model_fields["eval_rows"].default,
            **settings.run,
            **data,
            "max_length": how.max_length,
            "chat_template": how.chat_template,
            "model": settings.model,
            "model_name": settings.model_name,
            "data_name": settings.data_name,
            "method": settings.method or Recipe.model_fields["method"].default,
            "title": f"{chosen.name}: {settings.method}",
            "out": str(folder / "run"),
            "overwrite": settings.overwrite,
        }
    )
    if settings.how.max_length is None:  # the benchmark's, which a model with fewer positions need not have
        plan.model_fields_set.discard("max_length")
    return plan


def _lesson(settings: Bench, chosen: Benchmark) -> list[Row]:
    """The rows that the benchmark says are taught; none where they are those to forget and to keep."""
    return to_learn(chosen, chosen.taught, settings.data) if chosen.taught else []


def _check(settings: Bench, plan: Recipe, method: Method | None, folder: Path) -> dict[str, Any]:
    """The rows of the run, when all that can be checked without a model is in order."""
    sets = {k: load(v, plan) for k, v in (("forget", plan.forget), ("retain", plan.retain)) if v is not None}
    raw = load_streams(plan.model_copy(update=sets), method) if method else sets
    args = train.training_arguments(plan, method, len(sets["forget"]), folder / "run") if method else None
    if settings.teach is not None:
        arguments(plan.model_copy(update={"training": settings.teach}), sum(map(len, sets.values())), folder / "target")
    if settings.teach_retrained and "retain" not in sets:
        raise InputError(f"{settings.benchmark} has no retain set to teach a retrained model")
    tokenizer = load_tokenizer(settings.model, trust_remote_code=plan.trust_remote_code, quantize=plan.quantize)
    data = encode(raw, tokenizer, plan)
    if method:  # an unfinished run of other settings is told before a model is loaded
        unfinished.find(folder / "run", unfinished.identity(plan, method, data, args), plan)
    return sets


def _unlearned(
    plan: Recipe,
    method: Method,
    rows: Mapping[str, list[Row]],
    command: str | None,
    measured: dict[str, Any],
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """The record of the run, which is carried out unless the same one is there already."""
    from expunge import models

    folder = Path(plan.out)

    def earlier() -> dict[str, Any] | None:
        if not (folder / record.FILE).exists():
            return None
        start = models.load(plan.model, trust_remote_code=plan.trust_remote_code, quantize=plan.quantize).fingerprint
        made = is_finished(folder, folder / "model", identity(plan, start, rows, method))
        return record.read(folder) if made else None

    if said := processes.on_main(earlier):
        return said
    inputs = PythonInputs(callbacks=tuple(callbacks))
    said = unlearning_run.run(plan, method=method, command=command, measured=measured, inputs=inputs).record
    key = identity(plan, said["model"]["fingerprint"], rows, method)
    processes.on_main(partial(stamp, folder, folder / "model", key))
    return said
