"""``compare.json`` -> the page of a comparison: the summary sentence, the table of runs, and the limits.

Pure functions from that record to text; ``tradeoff`` draws.  Any part of the record may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.files import replace_text
from expunge.record import complete
from expunge.record_types import ComparedModel, ComparedRun, CompareRecord
from expunge.report import about
from expunge.report.bench_page import HEADLINES, Row, number_words
from expunge.report.draw import scores, tradeoff
from expunge.report.format import DASH, count, day, duration, plain
from expunge.report.html import FILE, page
from expunge.report.settings import Setting, code_lines, setting_lines

MODELS = {"target": "target", "retrained": "retrained"}


@dataclass(frozen=True)
class Line:
    """One row of the table: ``mark`` is how the figure shows it, ``cells`` are (value, small line under it)."""

    name: str
    hint: str
    mark: tradeoff.Mark | None
    cells: tuple[tuple[str, str], ...]
    seed: str = ""


def write_report(raw_record: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and the figure (SVG, PNG, PDF) into the folder of a comparison; no torch."""
    record = complete(CompareRecord, raw_record)
    tradeoff.write(record, names(record), folder)
    return replace_text(Path(folder) / FILE, render(record))


def render(raw_record: Mapping[str, Any]) -> str:
    """The page of a ``compare.json``; it quotes none of the data."""
    record = complete(CompareRecord, raw_record)
    utility, forget = names(record)
    return page(
        "compare.html.j2",
        source="the record of the comparison",
        version=record["expunge"] or "",
        title=title(record),
        created=day(record["created"]) if record["created"] else "",
        summary=summary(record),
        benchmark=record["benchmark"],
        paper=about.paper(record["paper"]),
        style=tradeoff.css(),
        chart=tradeoff.chart(record, (utility, forget)),
        scores=scores.chart(record),
        score_columns=score_columns(record),
        score_lines=score_lines(record),
        score_notes=score_notes(record),
        columns=[forget, utility, "Learning rate", "Steps", "Tokens", "Time"],
        lines=lines(record),
        failed=[(plain(r["name"]), plain(r["said"])) for r in record["runs"] if not r["done"]],
        warnings=[plain(w) for w in record["warnings"]],
        settings=settings(record),
        limits=limits(record),
    )


def names(raw_record: Any) -> tuple[str, str]:
    """The names of the axes: utility, and the forget figure."""
    record = complete(CompareRecord, raw_record)
    return figure_name(str(record["utility_figure"])), figure_name(str(record["forget_figure"]))


def figure_name(figure: str) -> str:
    """The display name of ``part/name``.

    >>> figure_name("forget/probability"), figure_name("all/model_utility"), figure_name("retain_qa/knowmem")
    ('Forget probability', 'Model utility', 'Retain qa: knowmem')
    """
    part, _, name = figure.partition("/")
    if known := HEADLINES.get((part, name)):
        return known
    label = Row(part, name, {}).label
    if part in ("", "all"):
        return label
    return f"{part.replace('_', ' ').capitalize()}: {label if label[:2].isupper() else label[:1].lower() + label[1:]}"


def title(raw_record: Any) -> str:
    """The page's title."""
    record = complete(CompareRecord, raw_record)
    n = len(tradeoff.labels(record))
    return f"{record['benchmark'] or 'A benchmark'}, {count(n)} method{'' if n == 1 else 's'} compared"


def summary(raw_record: Any) -> str:
    """The runs, and, of several, those on the Pareto front, in two sentences."""
    record = complete(CompareRecord, raw_record)
    runs = record["runs"]
    done = [r for r in runs if r["done"]]
    steps, rows = record["budget"]["steps"], record["budget"]["rows"]
    short = any((r["steps"] or 0) < (steps or 0) for r in done)
    per_run = f", each {'at most ' * short}{count(steps)} steps of {count(rows)} rows" if steps is not None else ""
    text = f"{_plural(len(runs), 'run')} of {_plural(len(tradeoff.labels(record)), 'method')}{per_run}"
    text += "." if len(done) == len(runs) else f"; {_plural(len(runs) - len(done), 'run')} failed."
    run_points = [p for r in runs if (p := tradeoff.point(_run_name(r, record), r, record))]
    best = tradeoff.pareto_front(run_points, lower=record["forget_better"] != "higher")
    if len(run_points) > 1:
        text += (
            " By the values alone, no other run is at least as good in both figures and better in one than "
            f"{', '.join(p.label for p in best)}; the intervals say how sure."
        )
    return text


def _run_name(r: ComparedRun, record: CompareRecord) -> str:
    """A run's name in a sentence, with its seed where there are several."""
    return plain(r["shown"]) + (f" (seed {plain(r['seed'])})" if len(record["seeds"]) > 1 else "")


def _plural(n: int, word: str) -> str:
    return f"{count(n)} {word}{'' if n == 1 else 's'}"


def lines(raw_record: Any) -> list[Line]:
    """The table: target and retrained model, then every run that has figures."""
    record = complete(CompareRecord, raw_record)
    marks, out = tradeoff.labels(record), []
    for name, model in ((MODELS["target"], record["target"]), (MODELS["retrained"], record["retrained"])):
        if model:
            blank = ((DASH, ""),) * 4
            out.append(Line(name, plain(model["source"]), None, (*_values(model, record), *blank)))
    for r in record["runs"]:
        if r["done"]:
            rate, seconds = r["learning_rate"], r["seconds"]
            cells = (
                (f"{rate:g}" if rate is not None else DASH, ""),
                (count(r["steps"]), ""),
                (count(r["tokens"]), ""),
                (duration(seconds["steps"]), f"asked in {duration(seconds['evaluation'])}"),
            )
            mark, all_cells = marks[str(r["label"])], (*_values(r, record), *cells)
            out.append(Line(plain(r["shown"]), _hint(r), mark, all_cells, plain(r["seed"])))
    return out


FLUENCY = "forget/fluency"


def score_columns(raw_record: Any) -> list[str]:
    """The scores that a run has, and the fluency of answers; none where no run has a score."""
    record = complete(CompareRecord, raw_record)
    names = scores.NAMES | {FLUENCY: "Fluency"}
    if not scores.lines(record):
        return []
    return [name for figure, name in names.items() if any(tradeoff.value(r, figure) for r in record["runs"])]


def score_lines(raw_record: Any) -> list[Line]:
    """The table of scores: target and retrained model, then every run that has figures."""
    record = complete(CompareRecord, raw_record)
    figures = [f for f, name in (scores.NAMES | {FLUENCY: "Fluency"}).items() if name in score_columns(record)]
    marks, out = tradeoff.labels(record), []
    for name, model in ((MODELS["target"], record["target"]), (MODELS["retrained"], record["retrained"])):
        if model and figures:
            out.append(Line(name, plain(model["source"]), None, _cells(model, figures)))
    for r in record["runs"]:
        if r["done"] and figures:
            out.append(Line(plain(r["shown"]), f"seed {plain(r['seed'])}", marks[str(r["label"])], _cells(r, figures)))
    return out


def score_notes(raw_record: Any) -> list[str]:
    """What was not measured of a score, once each."""
    record = complete(CompareRecord, raw_record)
    known = {tuple(figure.split("/")): name for figure, name in scores.NAMES.items()}
    said = [
        f"{known[str(f['part']), str(f['name'])]}: {f['note']}."
        for r in record["runs"]
        for f in r["figures"]
        if (f["part"], f["name"]) in known and f["note"] and ("without" in f["note"] or f["value"] is None)
    ]
    return list(dict.fromkeys(said))


def _cells(model: ComparedRun | ComparedModel, figures: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(value, interval) of each of ``figures``."""
    out = []
    for figure in figures:
        middle, low, high = tradeoff.value(model, figure) or (None, None, None)
        within = "" if low is None or high is None else f"{number_words(low)} to {number_words(high)}"
        out.append((number_words(middle), within))
    return tuple(out)


def _hint(r: ComparedRun) -> str:
    """Method, seed and the parameters that the recipe set, in one small line; the record has the others too."""
    parameters = [f"{k}={plain(v)}" for k, v in r["given"].items() if k not in r["choice"]]
    method = r["method"]["name"]
    method_name = [] if method == r["label"] else [plain(method)]
    return ", ".join([*method_name, f"seed {plain(r['seed'])}", *parameters])


def _values(model: ComparedRun | ComparedModel, record: CompareRecord) -> tuple[tuple[str, str], ...]:
    """(value, interval) of the forget figure and of utility."""
    return _cells(model, [str(record["forget_figure"]), str(record["utility_figure"])])


def settings(raw_record: Any) -> list[tuple[str, list[Setting]]]:
    """The groups of settings: the benchmark, as on the page of one benchmark run, and the training of every run."""
    record = complete(CompareRecord, raw_record)
    budget, seeds, training = record["budget"], record["seeds"], record["training"]
    shared = setting_lines(("Optimizer steps", budget["steps"]), ("Rows of each stream in a step", budget["rows"]))
    shared += [Setting("Seeds", ", ".join(map(plain, seeds)))] if seeds else []
    shared += setting_lines(("Adapter", record["adapter"])) + code_lines({"Adapter settings": record["lora"] or None})
    shared += [Setting(str(k), plain(v), "code") for k, v in training.items()]
    own_training = [Setting(str(r["shown"]), plain(t), "code") for r in record["runs"] if (t := _own(r, training))]
    groups = about.settings(record, MODELS)
    return [
        *groups[:-1],
        ("Every run", shared),
        *([("Training of its own", own_training)] if own_training else []),
        *groups[-1:],
    ]


def _own(r: ComparedRun, shared: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in r["training"].items() if shared.get(k) != v}


def limits(raw_record: Any) -> list[str]:
    """What the page does not show, in plain words, from what the record has."""
    record = complete(CompareRecord, raw_record)
    messages = []
    if limit := record["limit"]:
        messages.append(
            f"Only the first {count(limit)} rows of each part were asked: a quick look, not the benchmark's figures."
        )
    several = len(record["seeds"]) > 1
    messages.append(
        "The intervals (95 %) come from resampling the examples. "
        + ("How far the seeds of one method lie apart is another spread, of which few seeds show little." if several
           else "Another seed would give other figures, and no interval here covers that.")
    )  # fmt: skip
    messages.append(
        "Equal budgets are equal optimizer steps and rows. A step does not cost the same for all methods: time and tokens "
        "stand in the table. A method may need more steps, or another learning rate, than it was given."
    )
    if record["unequal_trials"]:
        messages.append(
            "The methods had unequal numbers of trials: one that was tried more often has had more chances to do well."
        )
    if any(r["choice"] for r in record["runs"]):
        messages.append(
            "Whoever picks the best trial of a grid by these figures picks it on the data that it is measured on."
        )
    if not record["retrained"]:
        messages.append("No model that never saw the forget set was asked; how near the runs come to one is not known.")
    messages.append(
        "Two figures are drawn of many; each run's own page has the others. Lower is not always better: below the retrained "
        "model, a model may betray by its silence what it was made to forget."
    )
    return [
        *messages,
        "This page is not a certificate: it proves neither that the data have no influence left nor a legal duty met.",
    ]
