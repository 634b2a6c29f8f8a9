"""A tuning on the user's own rows: what is checked before a model is loaded, the two models beside, and one trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge import record
from expunge.compare import budget
from expunge.compare.sweep import release_memory
from expunge.data import template
from expunge.data.example import Row
from expunge.evaluation import custom
from expunge.evaluation.probe import Probe
from expunge.method import Method
from expunge.models.check import check_files
from expunge.models.locate import resolve
from expunge.tune import figures, pruning
from expunge.tune.settings import TRIALS, Tune, trial
from expunge.unlearning import level, train
from expunge.unlearning import ready as checks
from expunge.unlearning import run as unlearning_run
from expunge.unlearning.python_inputs import PythonInputs
from expunge.unlearning.rows import length
from expunge.unlearning.settings import Recipe

if TYPE_CHECKING:
    from expunge.tune.trial import Work


@dataclass(frozen=True)
class Own:
    """What a method's run takes where nothing is searched; ``rate`` None: it finds its own learning rate."""

    rate: float | None
    budget: budget.Budget


@dataclass(frozen=True)
class Ready:
    """A tuning of which all is in order that can be checked without a model.

    ``own``: label -> what its runs take by themselves; ``probes``, ``halves``: what is measured; ``rows``: of the sets;
    ``model``, ``reference``: the names of target and reference model.
    """

    own: Mapping[str, Own]
    probes: Sequence[Probe]
    halves: Mapping[str, Sequence[Probe]]
    rows: Mapping[str, Sequence[Row]] = field(repr=False)
    model: str
    reference: str | None
    benchmark: Any = None


def ready(settings: Tune, folder: Path) -> Ready:
    """Every method's run, checked; raises InputError for what a person has to mend."""
    own: dict[str, Own] = {}
    probes: list[Probe] = []
    rows: dict[str, list[Row]] = {}
    first: Recipe | None = None
    for label in settings.methods:
        recipe = trial(settings, label, {}, str(folder / TRIALS / "new"))
        assert isinstance(recipe, Recipe)
        method, data, args = checks.ready(recipe)
        own[label] = Own(rate_of(method, args, recipe), budget.counted(args, len(data.rows["forget"])))
        if first is None:
            first, rows = recipe, {k: v for k, v in data.rows.items() if k in ("forget", "retain")}
            probes = figures.probes_of(rows, recipe.eval_rows)
    assert first
    custom.metrics(first.metric)
    return Ready(own, probes, figures.halves_of(probes), rows, first.model, _reference(settings, first))


def rate_of(method: Method, args: Any, recipe: Recipe) -> float | None:
    """The learning rate of a run with ``args``, None where it finds its own."""
    from expunge.training import rate

    return None if rate.is_found(method, args, recipe.training) else float(args.learning_rate)


def _reference(settings: Tune, recipe: Recipe) -> str | None:
    """The model that never saw the forget rows: the retrained one, or the one that gives the level."""
    if recipe.compare_with:
        return recipe.compare_with
    name = level.model_of(recipe.model_copy(update={"level": settings.shared.get("level")}))
    if name is not None:
        check_files(resolve(name), trust_remote_code=recipe.trust_remote_code)
    return name


def beside(settings: Tune, prepared: Ready, folder: Path) -> dict[str, dict[str, Any]]:
    """``target`` and ``reference``: source, fingerprint, and figures of each half and of the intermediate probes."""
    recipe = trial(settings, next(iter(settings.methods)), {}, str(folder / TRIALS / "new"))
    assert isinstance(recipe, Recipe)
    sets: dict[str, Sequence[Probe]] = {"intermediate": figures.intermediate(prepared.halves["first"])}
    sets |= prepared.halves
    names = {"target": prepared.model, "reference": prepared.reference}
    return {who: measured_model(name, recipe, sets) for who, name in names.items() if name}


def measured_model(name: str, recipe: Recipe, sets: Mapping[str, Sequence[Probe]]) -> dict[str, Any]:
    """The model ``name`` loaded as a run under ``recipe`` does: its source, fingerprint and the figures of ``sets``."""
    import torch

    from expunge import models

    method: Method = checks.method_of(recipe)
    loaded = models.load(
        name,
        dtype=getattr(torch, recipe.loaded),
        device=recipe.device,
        trust_remote_code=recipe.trust_remote_code,
        attn=recipe.attn,
        quantize=recipe.quantize,
        compute_dtype=train.compute_dtype(recipe, method),
    )
    template.use(loaded.tokenizer, recipe.template_arguments if recipe.chat_template else {})
    out = {"source": recipe.names.get(name, name), "fingerprint": loaded.fingerprint}
    out |= scored(loaded.model, loaded.tokenizer, recipe, sets)
    del loaded
    release_memory()
    return out


def scored(model: Any, tokenizer: Any, recipe: Recipe, sets: Mapping[str, Sequence[Probe]]) -> dict[str, Any]:
    """The figures of each of ``sets`` under ``model``; rows that are in several are scored once."""
    from expunge.evaluation.collect.one_pass import collect

    probes = list({(p.part, p.index): p for of in sets.values() for p in of}.values())
    how: dict[str, Any] = {"max_length": length(recipe), "chat_template": recipe.chat_template}
    collected = collect(model, tokenizer, probes, alone=True, **how)
    of_rows = partial(figures.of_rows, own=custom.metrics(recipe.metric))
    return {name: of_rows(figures.among(collected, part)) for name, part in sets.items()}


def measured(work: Work) -> dict[str, Any]:
    """Carry out the run of a trial; its facts for the record."""
    recipe = work.settings
    assert isinstance(recipe, Recipe)
    callbacks = (pruning.callback(work.intermediate, recipe),) if work.intermediate else ()
    done = unlearning_run.run(
        recipe, command=work.command, measured=work.known.measured, inputs=PythonInputs(callbacks=callbacks)
    )
    log = done.record
    return {
        **scored(done.model, done.tokenizer, recipe, work.halves),
        "steps": log["training"].get("stopped_after", log["training"]["max_steps"]),
        "learning_rate": log["training"].get("learning_rate"),
        "device": log.get("device"),
        "warnings": log.get("warnings") or [],
        "record": record.FILE,
    }
