"""Carry out a tuning: each method gets the same number of trials of at most the same number of steps.

A tuning that was interrupted goes on when it is called again: trials that ended are not repeated, one that was broken off
goes on from its checkpoint.  With more ``trials`` than before it goes on, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from expunge import files, jobs, outputs, processes, record
from expunge.bench.run import SharedResults
from expunge.compare.budget import Budget
from expunge.errors import InputError
from expunge.report import tune_page
from expunge.settings import name_of
from expunge.training import signals
from expunge.tune import describe, objective, on_benchmark, on_rows, recipes, resume, space, study
from expunge.tune.figures import HALVES
from expunge.tune.on_rows import Ready
from expunge.tune.resume import SETUP
from expunge.tune.settings import TRIALS, Tune, make, trial
from expunge.tune.study import Study
from expunge.tune.sweep import sweep
from expunge.tune.trial import names_of

FILE = "tune.json"
LAYOUT = outputs.Layout(
    FILE,
    "an earlier tuning is here",
    entries=(
        FILE,
        SETUP,
        study.FILE,
        f"{study.FILE}-*",
        "best-*.toml",
        "front.svg",
        "front.png",
        "report.html",
        f"{TRIALS}/",
    ),
    evidence=(SETUP, f"{TRIALS}/*/run.json"),
)


def tune(methods: Iterable[str] | Mapping[str, Any], model: str, **settings: Any) -> dict[str, Any]:
    """Tune methods with equal budgets: writes the folder ``out`` and returns the record.

    ``methods``: names, or NAME -> the parameters that stay.  ``settings``: fields of :class:`expunge.tune.settings.Tune`, of
    a recipe (``forget``, ``retain``, …), or of ``transformers.TrainingArguments``.  Raises InputError as :func:`run`.
    """
    tables = methods if isinstance(methods, Mapping) else {name: {} for name in methods}
    return run(make({"methods": tables, "model": name_of(model), **settings}))


def run(
    settings: Tune,
    *,
    command: str | None = None,
    tell: Callable[[str], Any] | None = None,
    prepare: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Carry out a tuning, write ``tune.json``, ``report.html`` and ``best-METHOD.toml`` into ``settings.out``, and return
    the record; ``tell`` gets a line as a trial begins and one as it ends.

    ``prepare()``, which is found by its name, is called in each further process.

    Raises InputError for what a person has to mend before a model is loaded; a trial that fails is recorded as such.
    """
    processes.check_one("a tuning", "start it without a launcher; --jobs N carries out several trials at once")
    with signals.caught():
        folder, prepared, spent, spaces = ready(settings)
        with outputs.claimed(settings.out, LAYOUT, overwrite=settings.overwrite, resumable=True):
            return _carried_out(
                settings, folder, prepared, spent, spaces, command, tell or (lambda line: None), prepare
            )


def ready(settings: Tune) -> tuple[Path, Ready, Budget, dict[str, space.Space]]:
    """The folder, the data, the budget and what is searched, when all that needs no model is in order."""
    study.check_installed()
    jobs.check(settings.spread, device=settings.shared.get("device"))
    inputs = {
        k: settings.shared.get(k) for k in ("model", "forget", "retain", "data", "retrained", "compare_with", "level")
    }
    folder = outputs.check(settings.out, LAYOUT, inputs=inputs, overwrite=settings.overwrite, resumable=True)
    of_its_data = on_benchmark.ready if settings.benchmark else on_rows.ready
    prepared = of_its_data(settings, folder)
    spent = _budget(settings, prepared)
    searched = space.split(settings.search, settings.entries)
    spaces: dict[str, space.Space] = {
        label: space.of(
            row,
            given=settings.methods[label],
            training=settings.shared.get("training", {}),
            search=searched[label],
            rate=prepared.own[label].rate,
            steps=spent.steps,
        )
        for label, row in settings.entries.items()
    }
    resume.setup_of(settings, folder, resume.identity(settings, prepared, spent, spaces))
    return folder, prepared, spent, spaces


def _budget(settings: Tune, prepared: Ready) -> Budget:
    """What a trial may take at most: the steps of the settings, the highest that are searched, or the most of any method."""
    budgets = [own.budget for own in prepared.own.values()]
    if len({b.rows for b in budgets}) > 1:
        raise InputError("the methods take unequal numbers of rows in a step; give per_device_train_batch_size for all")
    steps = max(b.steps for b in budgets)
    if (text := settings.search.get(space.STEPS)) is not None:
        among = space.read(space.STEPS, text, next(iter(settings.entries.values())))
        steps = int(max(among.values) if isinstance(among, space.Choices) else among.high)
    return Budget(steps, budgets[0].rows)


def planned(settings: Tune) -> dict[str, Any]:
    """What :func:`run` would do; raises InputError as it does, and writes nothing."""
    folder, prepared, spent, spaces = ready(settings)
    return {
        "benchmark": settings.benchmark,
        "model": prepared.model,
        "reference": prepared.reference,
        "data": {name: len(rows) for name, rows in prepared.rows.items()},
        "trials": settings.trials,
        "steps": spent.steps,
        "method": [f"{label} ({', '.join(f'{k}={it}' for k, it in of.items())})" for label, of in spaces.items()],
        "out": str(folder),
    }


# -- the trials ------------------------------------------------------------------------------------------------------------
def _carried_out(
    settings: Tune,
    folder: Path,
    prepared: Ready,
    spent: Budget,
    spaces: Mapping[str, space.Space],
    command: str | None,
    tell: Callable[[str], Any],
    prepare: Callable[[], Any] | None,
) -> dict[str, Any]:
    """What :func:`run` does after :func:`ready`, in a folder that is this process's alone."""
    key = resume.identity(settings, prepared, spent, spaces)
    study.forget_opened()  # the folder may have gone since this process last had it
    setup = resume.setup_of(settings, folder, key) if (folder / study.FILE).exists() else {}
    if not setup:
        _begin_anew(folder)
    names = names_of(trial(settings, next(iter(settings.methods)), {}, "-"))
    command = record.renamed(command, names)
    known = SharedResults()
    if not setup or _left(settings, folder, spaces):
        beside = _beside(settings, prepared, folder, known)
        if setup and not resume.same_models(settings, folder, setup["beside"], beside):
            _begin_anew(folder)
        goal = objective.named(settings.objective, settings.axes)
        for half in HALVES:  # nothing to forget or to retain is said before the first trial
            reference = beside["reference"][half] if "reference" in beside else None
            objective.check(settings.objective, settings.axes, beside["target"][half], reference)
            describe.score(beside["target"], half, beside, settings, goal)
        files.write_json(folder / SETUP, {"schema": record.SCHEMA, "made_of": key, "beside": beside})
    else:
        beside = setup["beside"]
    studies = _studies(settings, folder, prepared, spaces)
    sweep(settings, folder, prepared, spent, studies, beside, known, command, tell, prepare)
    results = {label: it.results() for label, it in studies.items()}
    return write(settings, folder, describe.full_record(settings, prepared, spaces, spent, beside, results, command))


def _studies(settings: Tune, folder: Path, prepared: Ready, spaces: Mapping[str, space.Space]) -> dict[str, Study]:
    """Each method's study, whose first trial is the method as it is."""
    out = {}
    for label, row in settings.entries.items():
        it = _study(settings, folder, label, spaces[label])
        own = prepared.own[label]
        it.first({**row.defaults, space.RATE: own.rate, space.STEPS: own.budget.steps})
        out[label] = it
    return out


def _study(settings: Tune, folder: Path, label: str, of: space.Space) -> Study:
    try:
        seed = int(settings.shared.get("seed", 0))
        return Study(folder / study.FILE, label, of, seed=seed, prune=settings.prune == "median")
    except Exception as error:  # SQLite's, through two libraries
        raise InputError(
            f"{folder / study.FILE} cannot be read ({type(error).__name__}); remove it, and the trials are made again"
        ) from error


def _left(settings: Tune, folder: Path, spaces: Mapping[str, space.Space]) -> bool:
    """Whether any trial is left to carry out."""
    studies = (_study(settings, folder, label, of) for label, of in spaces.items())
    return any(it.interrupted() or it.begun() < settings.trials for it in studies)


def _beside(settings: Tune, prepared: Ready, folder: Path, known: SharedResults) -> dict[str, dict[str, Any]]:
    if settings.benchmark:
        return on_benchmark.beside(settings, prepared, folder, known)
    return on_rows.beside(settings, prepared, folder)


def _begin_anew(folder: Path) -> None:
    """Remove what an earlier tuning left, the lock apart."""
    study.forget_opened()
    shutil.rmtree(folder / TRIALS, ignore_errors=True)
    earlier = [describe.recipe_file(label) for label in resume.methods_of(folder)]
    for name in (FILE, SETUP, study.FILE, f"{study.FILE}-journal", *earlier, "front.svg", "front.png", "report.html"):
        (folder / name).unlink(missing_ok=True)


# -- the end ---------------------------------------------------------------------------------------------------------------
def write(settings: Tune, folder: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record, the best recipes and the page of a tuning."""
    by_name = {r["name"]: r for r in said["runs"]}
    for method in said["methods"]:
        if method["best"]:
            run = by_name[method["best"]]
            comment = (
                f"The best of {settings.trials} trials of {method['label']} ({run['name']}): score "
                f"{run['score_first']:.4g} on the rows that chose it, {_shown(run.get('score_second'))} on the others."
            )
            values = recipes.recipe(settings, method["label"], run["choice"])
            files.replace_text(folder / method["recipe"], recipes.toml(values, comment))
        else:
            (folder / describe.recipe_file(method["label"])).unlink(missing_ok=True)
    record.write(said, folder / FILE)
    whole = record.read(folder / FILE)
    tune_page.write_report(whole, folder)
    return whole


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
