"""Carry out a tuning: each method gets the same number of trials of at most the same number of steps.

A tuning that was interrupted goes on when it is called again: trials that ended are not repeated, one that was broken off goes
on from its checkpoint.  With more ``trials`` than before it goes on, too.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge import files, jobs, outputs, processes, record
from expunge.bench.run import Seen
from expunge.compare.budget import Budget
from expunge.compare.sweep import scrubbed
from expunge.errors import InputError
from expunge.evaluation.probe import fingerprint
from expunge.jobs import Done, Task
from expunge.report import tune_page
from expunge.settings import name_of
from expunge.training import signals
from expunge.tune import describe, objective, on_benchmark, on_rows, recipes, space, study
from expunge.tune.on_rows import Ready
from expunge.tune.pruning import Intermediate
from expunge.tune.settings import TRIALS, Tune, folder_name, make, trial
from expunge.tune.study import Study, Suggestion
from expunge.tune.trial import Work, carry_out, names_of

FILE, SETUP = "tune.json", "setup.json"
LAYOUT = outputs.Layout(
    FILE,
    "an earlier tuning is here",
    entries=(FILE, SETUP, study.FILE, f"{study.FILE}-*", "best-*.toml", "front.svg", "front.png", "report.html", f"{TRIALS}/"),
    evidence=(SETUP, f"{TRIALS}/*/run.json"),
)
REPORTS = 8  # intermediate values of a trial that takes the whole budget
VOLATILE = (
    "out", "overwrite", "save_every", "fresh", "device", "attn", "title", "model_name", "data_name", "retrained_name",
    "compare_name", "jobs", "cluster",
)  # fmt: skip


def tune(methods: Iterable[str] | Mapping[str, Any], model: str, **settings: Any) -> dict[str, Any]:
    """Tune methods with equal budgets: writes the folder ``out`` and returns the record.

    ``methods``: names, or NAME -> the parameters that stay.  ``settings``: fields of :class:`expunge.tune.settings.Tune`, of a
    recipe (``forget``, ``retain``, …), or of ``transformers.TrainingArguments``.  Raises InputError as :func:`run`.
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
    """Carry out a tuning, write ``tune.json``, ``report.html`` and ``best-METHOD.toml`` into ``settings.out``, and return the
    record; ``tell`` gets a line as a trial begins and one as it ends.

    ``prepare()``, which is found by its name, is called in each further process.

    Raises InputError for what a person has to mend before a model is loaded; a trial that fails is recorded as such.
    """
    processes.check_one("a tuning", "start it without a launcher; --jobs N carries out several trials at once")
    with signals.caught():
        folder, prepared, spent, spaces = ready(settings)
        with outputs.claimed(settings.out, LAYOUT, overwrite=settings.overwrite, resumable=True):
            return _carried_out(settings, folder, prepared, spent, spaces, command, tell or (lambda line: None), prepare)


def ready(settings: Tune) -> tuple[Path, Ready, Budget, dict[str, space.Space]]:
    """The folder, the data, the budget and what is searched, when all that needs no model is in order."""
    study.check_installed()
    jobs.check(settings.spread, device=settings.shared.get("device"))
    inputs = {k: settings.shared.get(k) for k in ("model", "forget", "retain", "data", "retrained", "compare_with", "level")}
    folder = outputs.check(settings.out, LAYOUT, inputs=inputs, overwrite=settings.overwrite, resumable=True)
    prepared = (on_benchmark if settings.benchmark else on_rows).ready(settings, folder)
    spent = _budget(settings, prepared)
    searched = space.split(settings.search, settings.entries)
    spaces = {
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
    _check_again(settings, folder, made_of(settings, prepared, spent, spaces))
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


# -- what a folder holds ---------------------------------------------------------------------------------------------------
def made_of(settings: Tune, prepared: Ready, spent: Budget, spaces: Mapping[str, space.Space]) -> dict[str, Any]:
    """What decides every trial, for a tuning that goes on."""
    axes = settings.axes
    said = {
        "methods": {k: {"parameters": settings.methods[k], "search": {n: str(r) for n, r in of.items()}}
                    for k, of in spaces.items()},
        "budget": [spent.steps, spent.rows],
        "objective": settings.objective,
        "figures": [axes.forget, axes.better, axes.utility],
        "prune": [settings.prune, _every(settings, spent)],
        "benchmark": settings.benchmark,
        "settings": {k: v for k, v in sorted(settings.shared.items()) if k not in VOLATILE},
        "rows": fingerprint(prepared.probes),
    }  # fmt: skip
    return dict(json.loads(json.dumps(files.strict(said), default=str)))


def _check_again(settings: Tune, folder: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """What ``setup.json`` in ``folder`` says, empty if it is not there; InputError where it is of another tuning."""
    file = folder / SETUP
    if not file.exists() or settings.overwrite:
        return {}
    remedy = "choose another --out, or begin anew with --overwrite"
    said = record.check_schema(files.read_json(file, description="record", remedy=remedy), file)
    old = said.get("made_of") or {}
    for name in {**old, **key}:
        if old.get(name) != key.get(name):
            raise InputError(f"{folder} holds a tuning with other settings ({_difference(name, old, key)}); {remedy}")
    return said


def _difference(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first difference of two settings, in a few words."""
    a, b = old.get(name), new.get(name)
    if name == "rows":
        return "the rows are others"
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        inner = next(k for k in {**a, **b} if a.get(k) != b.get(k))
        return f"{name}: {_difference(inner, a, b)}"
    return f"{name}: {a!r}, now {b!r}"


def _begin_anew(folder: Path) -> None:
    """Remove what an earlier tuning left, the lock apart."""
    study.forget_opened()
    shutil.rmtree(folder / TRIALS, ignore_errors=True)
    for pattern in (FILE, SETUP, f"{study.FILE}*", "best-*.toml", "front.*", "report.html"):
        for file in folder.glob(pattern):
            file.unlink()


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
    key = made_of(settings, prepared, spent, spaces)
    setup = _check_again(settings, folder, key) if (folder / study.FILE).exists() else {}
    if not setup:
        _begin_anew(folder)
    names = names_of(trial(settings, next(iter(settings.methods)), {}, "-"))
    command = record.renamed(command, names)
    known = Seen()
    if not setup or _left(settings, folder, spaces):
        beside = _beside(settings, prepared, folder, known)
        _check_models(folder, setup.get("beside"), beside)
        objective.check(settings.objective, settings.axes, beside["target"]["first"])
        goal = objective.named(settings.objective, settings.axes)
        for half in ("first", "second"):  # nothing to forget or to keep is said before the first trial
            describe.score(beside["target"], half, beside, settings, goal)
        files.write_json(folder / SETUP, {"schema": record.SCHEMA, "made_of": key, "beside": beside})
    else:
        beside = setup["beside"]
    studies = _studies(settings, folder, prepared, spaces)
    _sweep(settings, folder, prepared, spent, studies, beside, known, command, tell, prepare)
    results = {label: it.results() for label, it in studies.items()}
    return write(settings, folder, describe.whole(settings, prepared, spaces, spent, beside, results, command))


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
            f"{folder / study.FILE} cannot be read ({type(error).__name__}); begin anew with --overwrite, or choose another --out"
        ) from error


def _left(settings: Tune, folder: Path, spaces: Mapping[str, space.Space]) -> bool:
    """Whether any trial is left to carry out."""
    studies = (_study(settings, folder, label, of) for label, of in spaces.items())
    return any(it.interrupted() or it.begun() < settings.trials for it in studies)


def _beside(settings: Tune, prepared: Ready, folder: Path, known: Seen) -> dict[str, dict[str, Any]]:
    if settings.benchmark:
        return on_benchmark.beside(settings, prepared, folder, known)
    return on_rows.beside(settings, prepared, folder)


def _check_models(folder: Path, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> None:
    """Raise InputError where target or reference are other models than those of the trials that are there."""
    for who in ("target", "reference") if old else ():
        assert old
        if (old.get(who) or {}).get("fingerprint") != (new.get(who) or {}).get("fingerprint"):
            raise InputError(
                f"{folder} holds a tuning with another {who} model; choose another --out, or begin anew with --overwrite"
            )


def _sweep(
    settings: Tune,
    folder: Path,
    prepared: Ready,
    spent: Budget,
    studies: Mapping[str, Study],
    beside: Mapping[str, Any],
    known: Seen,
    command: str | None,
    tell: Callable[[str], Any],
    prepare: Callable[[], Any] | None,
) -> None:
    """Carry out the trials that are left, round by round, so that an interrupted tuning has equal numbers of each method."""
    total = settings.trials * len(studies)
    ended = sum(len(it.results()) for it in studies.values())
    suggested: dict[str, Suggestion] = {}
    goal = objective.named(settings.objective, settings.axes)

    def tasks() -> Iterator[Task]:
        for one in _suggestions(settings, studies):
            name = folder_name(one.label, one.number)
            suggested[name] = one
            tell(f"{name}  {'  '.join(f'{k}={v:.3g}' if isinstance(v, float) else f'{k}={v}' for k, v in one.choice.items())}")
            work = Work(
                name=name,
                settings=trial(settings, one.label, one.choice, str(Path(settings.out) / TRIALS / name)),
                halves=prepared.halves,
                intermediate=_intermediate(settings, folder, prepared, spent, one, beside),
                command=command,
                keep_models=settings.keep_models,
                rows=prepared.rows,
                known=known,
            )
            yield Task(name, carry_out, (work,))

    spread = jobs.limited(settings.spread, total - ended)
    try:
        with contextlib.closing(
            jobs.spread(tasks(), spread, device=settings.shared.get("device"), prepare=prepare)
        ) as results:
            for done in results:
                facts = _facts(done, known, prepared)
                one = suggested[done.name]
                value = describe.score(facts, "first", beside, settings, goal) if facts["state"] == "finished" else None
                worth = value.value if value else 0.0 if facts.get("broke_down") else None
                studies[one.label].tell(one.number, facts["state"], worth, facts)
                ended += 1
                tell(f"   {ended} of {total} done: {line(done.name, facts, value)}")
    except KeyboardInterrupt as error:
        raise signals.within(error, f"{ended} of {total} trials are finished") from None


def _suggestions(settings: Tune, studies: Mapping[str, Study]) -> Iterator[Suggestion]:
    for it in studies.values():
        yield from it.interrupted()
    while open_ones := [it for it in studies.values() if it.begun() < settings.trials]:
        for it in open_ones:
            yield it.ask()


def _intermediate(
    settings: Tune, folder: Path, prepared: Ready, spent: Budget, one: Suggestion, beside: Mapping[str, Any]
) -> Intermediate | None:
    """How a trial is measured while it trains; None where none is pruned."""
    if settings.prune == "none":
        return None
    from expunge.tune import figures

    probes = (
        on_benchmark.intermediate(prepared) if settings.benchmark else figures.intermediate(prepared.halves["first"])
    )
    return Intermediate(
        file=folder.absolute() / study.FILE,
        label=one.label,
        number=one.number,
        every=_every(settings, spent),
        probes=probes,
        target=beside["target"]["intermediate"],
        reference=beside["reference"]["intermediate"] if "reference" in beside else None,
    )


def _every(settings: Tune, spent: Budget) -> int:
    return settings.prune_every or max(1, spent.steps // REPORTS)


def _facts(done: Done, known: Seen, prepared: Ready) -> dict[str, Any]:
    """What came of a trial, also of one whose process was killed."""
    if done.error is not None:
        return {"state": "failed", "said": scrubbed(done.error, {}, prepared.rows), "seconds": done.seconds}
    facts, measured = done.value
    known.measured.update(measured)
    return dict(facts)


def line(name: str, facts: Mapping[str, Any], score: objective.Score | None) -> str:
    """A trial in one line.

    >>> line("pdu-0003", {"state": "finished", "seconds": 12.3}, objective.Score(0.75, 0.6, 1.0))
    'pdu-0003  12 s  score 0.75 (forgotten 0.6, retained 1)'
    >>> line("pdu-0004", {"state": "pruned", "seconds": 3.21, "steps": 6}, None)
    'pdu-0004  3.2 s  pruned after step 6'
    """
    took = f"{s:.0f} s" if (s := facts["seconds"]) >= 10 else f"{s:.1f} s"
    if facts["state"] == "pruned":
        what = f"pruned after step {facts['steps']}"
    elif score is None:
        what = f"failed: {facts.get('said')}"
    else:
        shares = {"forgotten": score.forgotten, "retained": score.retained}
        shown = ", ".join(f"{k} {v:.3g}" for k, v in shares.items() if v is not None)
        what = f"score {'none' if score.value is None else f'{score.value:.3g}'}{f' ({shown})' if shown else ''}"
    return f"{name}  {took}  {what}"


# -- the end ---------------------------------------------------------------------------------------------------------------
def write(settings: Tune, folder: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record, the best recipes and the page of a tuning."""
    for file in folder.glob("best-*.toml"):
        file.unlink()
    by_name = {r["name"]: r for r in said["runs"]}
    for method in said["methods"]:
        if method["best"]:
            run = by_name[method["best"]]
            comment = (
                f"The best of {settings.trials} trials of {method['label']} ({run['name']}): score {run['score_first']:.4g} on the "
                f"rows that chose it, {_shown(run.get('score_second'))} on the others."
            )
            values = recipes.recipe(settings, method["label"], run["choice"])
            files.replace_text(folder / method["recipe"], recipes.toml(values, comment))
    record.write(said, folder / FILE)
    whole = record.read(folder / FILE)
    tune_page.write_report(whole, folder)
    return whole


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
