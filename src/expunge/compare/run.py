"""Carry out a comparison: target and retrained model are asked once, then the runs are carried out, each in its folder.

An interrupted comparison goes on when it is called again: a run whose figures are there, made with the same settings, is not
repeated.  A method that fails is recorded with its sentence, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import bench, jobs, outputs, processes, record
from expunge.bench.run import Ready, SharedResults
from expunge.benchmarks import named
from expunge.compare import budget
from expunge.compare import describe as about
from expunge.compare.resume import is_done, same_models
from expunge.compare.settings import Compare, Trial, make, trials
from expunge.compare.sweep import release_memory, sweep
from expunge.data.example import Row
from expunge.errors import InputError, nearest
from expunge.evaluation import evaluate
from expunge.evaluation.benchmark import Benchmark, Data, data_of, to_json
from expunge.evaluation.probe import Probe, fingerprint
from expunge.evaluation.table import Collected, Generated, Scored
from expunge.report import compare_page as compared
from expunge.settings import name_of
from expunge.training import signals

FILE = "compare.json"
LAYOUT = outputs.Layout(
    FILE,
    "an earlier comparison is here",
    entries=("compare.json", "report.html", "tradeoff.svg", "tradeoff.png", "tradeoff.pdf", "table.*", "runs/"),
    evidence=("runs/*/figures.json", "runs/*/run/made.json", "runs/*/run/run.json"),
)
ROWS_PER_PART = 3  # rows of each part that are enough to learn which figures a benchmark has


def compare(benchmark: str, methods: Iterable[str] | Mapping[str, Any], model: str, **settings: Any) -> dict[str, Any]:
    """Several methods on one benchmark with equal budgets: writes the folder ``out`` and returns the record.

    ``methods``: names, or NAME -> what the table ``[methods.NAME]`` of a recipe holds.  ``settings``: any other key of such
    a recipe, or a field of ``transformers.TrainingArguments`` for all (``max_steps=…``).  Raises InputError as :func:`run`.
    """
    tables = methods if isinstance(methods, Mapping) else {name: {} for name in methods}
    return run(make({"benchmark": benchmark, "methods": tables, "model": name_of(model), **settings}))


def run(
    settings: Compare,
    *,
    command: str | None = None,
    tell: Callable[[str], Any] | None = None,
    prepare: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Carry out a comparison, write ``compare.json``, ``tradeoff.svg``, ``.png``, ``.pdf`` and ``report.html`` into
    ``settings.out``, and return the record; ``tell`` hears which run begins and what came of it.

    ``prepare()``, which is found by its name, is called in each further process.

    Raises InputError for what a person has to mend before a model is loaded; what is wrong with one method only while it
    runs is recorded as that run's.
    """
    processes.check_one("a comparison", "start it without a launcher, or use `expunge bench` for each run")
    with signals.caught():
        found = trials(settings)
        prepared = ready(settings, found)
        with outputs.claimed(settings.out, LAYOUT, overwrite=settings.overwrite, resumable=True):
            return _carried_out(settings, found, prepared, command, tell or (lambda line: None), prepare)


def _carried_out(
    settings: Compare,
    found: Sequence[Trial],
    prepared: tuple[Path, dict[str, Ready], budget.Budget, Data, list[Probe]],
    command: str | None,
    tell: Callable[[str], Any],
    prepare: Callable[[], Any] | None,
) -> dict[str, Any]:
    """What :func:`run` does after :func:`ready`, in a folder that is this process's alone."""
    folder, of, spent, source, probes = prepared
    first = of[found[0].name]
    there = {name: is_done(it, probes, settings.overwrite) for name, it in of.items()}

    from expunge.evaluation.collect import cached as asking
    from expunge.evaluation.collect import judge

    given = {"target": first.settings.model, "retrained": first.settings.retrained}
    shared = SharedResults(asked={name: asking.collected(name, probes, first.how) for name in given.values() if name})
    beside = {who: shared.asked[name] for who, name in given.items() if name}
    beside = dict(judge.judged(first.chosen.score_parts, probes, beside, first.how))
    shared.asked.update({name: beside[who] for who, name in given.items() if name})
    figures = evaluate.figures_of(first.chosen, {who: collected for who, (collected, _) in beside.items()})
    _named(settings, first.chosen, {(f.part, f.name) for f in figures["target"]})
    prints = {who: facts["fingerprint"] for who, (_, facts) in beside.items()}
    done = {name for name, it in of.items() if there[name] and same_models(it, prints, settings.overwrite)}
    release_memory()
    runs = sweep(settings, found, of, done, shared, command=command, folder=folder, tell=tell, prepare=prepare)
    names = bench.names_of(first.settings)
    whole = about.full_record(settings, first, spent, runs) | {
        "command": record.renamed(command, names),
        "data": {
            "source": names.get(str(first.settings.data), first.settings.data),
            "fingerprint": fingerprint(probes),
            "left_out": list(source.absent),
        },
        **{
            who: {**facts, "source": names.get(facts["source"], facts["source"]), "figures": to_json(figures[who])}
            for who, (_, facts) in beside.items()
        },
    }
    return write(whole, folder)


def ready(settings: Compare, found: Sequence[Trial]) -> tuple[Path, dict[str, Ready], budget.Budget, Data, list[Probe]]:
    """The folder, every run, the one budget, the data and the questions, when all that needs no model is in order."""
    jobs.check(settings.spread, device=found[0].settings.how.device)
    folder = _checked_folder(settings, named(found[0].settings.benchmark).name)
    of = _ready(found)
    first = of[found[0].name]
    spent = budget.equal({name: budget.of(it) for name, it in of.items()})
    source = data_of(first.chosen, first.settings.data)
    probes = evaluate.limited(first.chosen.probes(source), first.how.limit)
    _named(settings, first.chosen, _figures(first.chosen, probes))
    return folder, of, spent, source, probes


def _ready(found: Sequence[Trial]) -> dict[str, Ready]:
    """Every run, ready; the rows of those with one label are read and checked once."""
    of: dict[str, Ready] = {}
    rows: dict[str, Mapping[str, list[Row]]] = {}
    for trial in found:
        of[trial.name] = bench.ready(trial.settings, rows=rows.get(trial.label))
        rows[trial.label] = of[trial.name].rows
    return of


def planned(settings: Compare) -> dict[str, Any]:
    """What :func:`run` would do; raises InputError as it does, and writes nothing."""
    found = trials(settings)
    _, of, spent, _, probes = ready(settings, found)
    for it in of.values():
        is_done(it, probes, settings.overwrite)
    first = of[found[0].name]
    return {
        "benchmark": first.chosen.name,
        "model": first.settings.model,
        "data": {name: len(rows) for name, rows in first.rows.items()} | {"questions": len(probes)},
        "method": [trial.name for trial in found],
        "steps": spent.steps,
        "out": settings.out,
    }


def write(said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the record of a comparison, its figure and its page."""
    folder.mkdir(parents=True, exist_ok=True)
    record.write(said, folder / FILE)
    whole = record.read(folder / FILE)
    compared.write_report(whole, folder)
    return whole


# -- before a model is loaded ---------------------------------------------------------------------------------------------
def _checked_folder(settings: Compare, benchmark: str) -> Path:
    """The folder of the comparison; InputError if a file or a comparison on another benchmark is there."""
    inputs = {k: settings.shared.get(k) for k in ("model", "data", "retrained")}
    folder = outputs.check(settings.out, LAYOUT, inputs=inputs, overwrite=settings.overwrite, resumable=True)
    if (folder / FILE).exists() and not settings.overwrite:
        other = record.read(folder / FILE).get("benchmark")
        if other != benchmark:
            raise InputError(f"{folder}: a comparison on {other} is here; choose another folder, or --overwrite")
    return folder


def _figures(chosen: Benchmark, probes: list[Probe]) -> set[tuple[str, str]]:
    """(part, name) of the figures that a benchmark makes of its probes, found with made-up answers; none where it cannot
    score such.
    """
    import numpy as np

    few = [p for p in probes if p.index < ROWS_PER_PART]
    made = np.linspace(-2, -1, 4, dtype=np.float32)
    table = Collected(
        tuple(
            Scored(
                p.part, p.index, v, text, made, made - 1, made + 3, made > -1.5, grad_norm=1.0 + p.index, note=p.note
            )
            for p in few
            for v, text in p.texts.items()
        ),
        tuple(Generated(p.part, p.index, "answer", p.row.answer, p.row.answer, p.note) for p in few if p.ask),
    )
    try:
        return {(f.part, f.name) for f in chosen.score(table, table)}
    except Exception:  # a benchmark may need real answers: then the target's tell
        return set()


def _named(settings: Compare, chosen: Benchmark, known: set[tuple[str, str]]) -> None:
    """InputError where a figure that is to be drawn is none of ``known``."""
    names = sorted("/".join(pair) for pair in known)
    for key, figure in zip(("forget_figure", "utility_figure"), settings.figures, strict=True):
        if not figure:
            listed = f"; {chosen.name} has {', '.join(names)}" if names else f", as part/name of {chosen.name}'s table"
            raise InputError(f"say with {key} which figure is drawn{listed}")
        if names and figure not in names:
            raise InputError(
                f"{chosen.name} has no figure {figure!r} for {key}{nearest(figure, names)}; it has {', '.join(names)}"
            )
