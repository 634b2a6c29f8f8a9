"""A tuning on a benchmark: its rows are forgotten, its questions asked, and its figures taken of each half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge import bench, outputs, record
from expunge.bench.run import SharedResults
from expunge.bench.settings import Bench
from expunge.compare import budget
from expunge.errors import InputError
from expunge.evaluation import custom, evaluate, table
from expunge.evaluation.benchmark import data_of, to_json
from expunge.tune import figures, on_rows, pruning
from expunge.tune.on_rows import Own, Ready, rate_of
from expunge.tune.settings import TRIALS, Tune, trial

if TYPE_CHECKING:
    from expunge.tune.trial import Work


def ready(settings: Tune, folder: Path) -> Ready:
    """Every method's run, checked; raises InputError for what a person has to mend."""
    of: dict[str, Any] = {}
    rows = None
    for label in settings.methods:
        run = trial(settings, label, {}, str(folder / TRIALS / "new"))
        assert isinstance(run, Bench)
        of[label] = bench.ready(run, rows=rows)
        rows = of[label].rows
    first = next(iter(of.values()))
    if not (settings.axes.forget and settings.axes.utility):
        raise InputError(
            f"say with --forget-figure and --utility-figure which figures of {first.chosen.name} a trial is judged by, as "
            "part/name of its table"
        )
    probes = evaluate.limited(first.chosen.probes(data_of(first.chosen, first.settings.data)), first.how.limit)
    own = {label: Own(_rate(it), budget.of(it)) for label, it in of.items()}
    halves = figures.halves_of(probes)
    return Ready(own, probes, halves, first.rows, first.settings.model, first.settings.retrained, first)


def _rate(it: Any) -> float | None:
    from expunge.unlearning import train

    args = train.training_arguments(it.plan, it.method, len(it.rows["forget"]), it.folder)
    return rate_of(it.method, args, it.plan)


def beside(settings: Tune, prepared: Ready, folder: Path, known: SharedResults) -> dict[str, dict[str, Any]]:
    """``target`` and ``reference``: source, fingerprint, and figures of each half and of the intermediate probes.

    Their answers stay in ``known``, for the trials.
    """
    from expunge.evaluation.collect import cached

    first = prepared.benchmark
    names = {"target": prepared.model, "retrained": prepared.reference}
    for source in filter(None, names.values()):
        known.asked[source] = cached.collected(source, prepared.probes, first.how)
    answers = {who: known.asked[name][0] for who, name in names.items() if name}
    out: dict[str, dict[str, Any]] = {}
    called = bench.names_of(first.settings)
    sets = {"intermediate": intermediate(prepared)}
    for who, name in names.items():
        if name:
            out["target" if who == "target" else "reference"] = {
                "source": called.get(name, name),
                "fingerprint": known.asked[name][1]["fingerprint"],
                **(on_rows.measured_model(name, first.plan, sets) if settings.prune != "none" else {}),
            }
    for half, of in prepared.halves.items():
        halved = {who: figures.among(collected, of) for who, collected in answers.items()}
        scored = evaluate.figures_of(first.chosen, halved, custom.metrics(first.settings.metric))
        for who, list_of in scored.items():
            out["target" if who == "target" else "reference"][half] = to_json(list_of)
    return out


def intermediate(prepared: Ready) -> list[Any]:
    """The probes of a trial that trains: rows to forget and to retain, of the first half."""
    probes = figures.probes_of(prepared.rows, max(map(len, prepared.rows.values())))
    return figures.intermediate(figures.halves_of(probes)["first"])


def measured(work: Work) -> dict[str, Any]:
    """Carry out the run of a trial, ask its model; its facts for the record."""
    assert isinstance(work.settings, Bench)
    it = bench.ready(work.settings)
    assert it.plan
    callbacks = [pruning.callback(work.intermediate, it.plan)] if work.intermediate else []
    with outputs.claimed(it.folder, evaluate.LAYOUT, overwrite=True):
        said = bench.carry_out(it, command=work.command, shared=work.known, callbacks=callbacks)
    log = record.read(it.folder / "run")
    answers = {"model": table.read(it.folder / evaluate.SCORES)}
    if it.settings.retrained:
        answers["retrained"] = work.known.asked[it.settings.retrained][0]
    return {
        **_halves(it, answers, work.halves),
        "steps": log["training"].get("stopped_after", log["training"]["max_steps"]),
        "learning_rate": log["training"].get("learning_rate"),
        "device": log.get("device"),
        "warnings": [*(log.get("warnings") or []), *(said.get("warnings") or [])],
        "record": f"run/{record.FILE}",
    }


def _halves(it: Any, answers: Mapping[str, Any], halves: Mapping[Any, Sequence[Any]]) -> dict[str, Any]:
    own = custom.metrics(it.settings.metric)
    out = {}
    for half, of in halves.items():
        halved = {who: figures.among(collected, of) for who, collected in answers.items()}
        out[half] = to_json(evaluate.figures_of(it.chosen, halved, own)["model"])
    return out
