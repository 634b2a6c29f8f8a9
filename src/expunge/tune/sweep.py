"""The trials of a tuning, round by round, several at once where that is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge import jobs
from expunge.bench.run import SharedResults
from expunge.compare.budget import Budget
from expunge.compare.sweep import scrubbed
from expunge.jobs import Done, Task
from expunge.training import signals
from expunge.tune import describe, figures, objective, on_benchmark, study
from expunge.tune.on_rows import Ready
from expunge.tune.pruning import Intermediate
from expunge.tune.settings import TRIALS, Tune, folder_name, trial
from expunge.tune.study import Study, Suggestion
from expunge.tune.trial import Work, carry_out

REPORTS = 8  # intermediate values of a trial that takes the whole budget


def sweep(
    settings: Tune,
    folder: Path,
    prepared: Ready,
    spent: Budget,
    studies: Mapping[str, Study],
    beside: Mapping[str, Any],
    known: SharedResults,
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
            tell(
                f"{name}  {'  '.join(f'{k}={v:.3g}' if isinstance(v, float) else f'{k}={v}' for k, v in one.choice.items())}"
            )
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
    probes = (
        on_benchmark.intermediate(prepared) if settings.benchmark else figures.intermediate(prepared.halves["first"])
    )
    return Intermediate(
        file=folder.absolute() / study.FILE,
        label=one.label,
        number=one.number,
        every=every(settings, spent),
        probes=probes,
        target=beside["target"]["intermediate"],
        reference=beside["reference"]["intermediate"] if "reference" in beside else None,
    )


def every(settings: Tune, spent: Budget) -> int:
    """Steps between two intermediate values."""
    return settings.prune_every or max(1, spent.steps // REPORTS)


def _facts(done: Done, known: SharedResults, prepared: Ready) -> dict[str, Any]:
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
