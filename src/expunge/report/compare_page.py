"""What ``compare.json`` says -> the page of a comparison: the sentence on top, the table of runs, what it does not show.

Pure functions from that record to text; ``tradeoff`` draws.  Any part of the record may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.files import replace_text
from expunge.record import complete
from expunge.record_types import ComparedModel, ComparedRun, CompareRecord
from expunge.report import about
from expunge.report.bench_page import HEADLINES, Row, number_words
from expunge.report.draw import tradeoff
from expunge.report.format import DASH, count, day, duration, plain
from expunge.report.html import FILE, page
from expunge.report.settings import Setting, code, named

MODELS = {"target": "target", "retrained": "retrained"}


@dataclass(frozen=True)
class Line:
    """One row of the table: ``mark`` is how the figure shows it, ``cells`` are (value, small line under it)."""

    name: str
    hint: str
    mark: tradeoff.Mark | None
    cells: tuple[tuple[str, str], ...]
    seed: str = ""


def write_report(said: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html``, ``tradeoff.svg`` and ``tradeoff.png`` into the folder of a comparison; no torch."""
    record = complete(CompareRecord, said)
    tradeoff.write(record, names(record), folder)
    return replace_text(Path(folder) / FILE, render(record))


def render(said: Mapping[str, Any]) -> str:
    """The page of what a ``compare.json`` says; it quotes none of the data."""
    record = complete(CompareRecord, said)
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
        columns=[forget, utility, "Learning rate", "Steps", "Tokens", "Time"],
        lines=lines(record),
        failed=[(plain(r["name"]), plain(r["said"])) for r in record["runs"] if not r["done"]],
        warnings=[plain(w) for w in record["warnings"]],
        settings=settings(record),
        limits=limits(record),
    )


def names(said: Any) -> tuple[str, str]:
    """What the axes are called: utility, and the forget figure."""
    record = complete(CompareRecord, said)
    return figure_name(str(record["utility_figure"])), figure_name(str(record["forget_figure"]))


def figure_name(figure: str) -> str:
    """``part/name`` as people read it.

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


def title(said: Any) -> str:
    """What was done, in a few words."""
    record = complete(CompareRecord, said)
    n = len(tradeoff.labels(record))
    return f"{record['benchmark'] or 'A benchmark'}, {count(n)} method{'' if n == 1 else 's'} compared"


def summary(said: Any) -> str:
    """What was run, and, of several, which runs no other one beats, in two sentences."""
    record = complete(CompareRecord, said)
    runs = record["runs"]
    done = [r for r in runs if r["done"]]
    steps, rows = record["budget"]["steps"], record["budget"]["rows"]
    short = any((r["steps"] or 0) < (steps or 0) for r in done)
    each = f", each {'at most ' * short}{count(steps)} steps of {count(rows)} rows" if steps is not None else ""
    text = f"{_many(len(runs), 'run')} of {_many(len(tradeoff.labels(record)), 'method')}{each}"
    text += "." if len(done) == len(runs) else f"; {_many(len(runs) - len(done), 'run')} failed."
    drawn = [p for r in runs if (p := tradeoff.point(_called(r, record), r, record))]
    best = tradeoff.unbeaten(drawn, lower=record["forget_better"] != "higher")
    if len(drawn) > 1:
        text += (
            " By the values alone, no other run is at least as good in both figures and better in one than "
            f"{', '.join(p.label for p in best)}; the intervals say how sure."
        )
    return text


def _called(r: ComparedRun, record: CompareRecord) -> str:
    """A run's name in a sentence, with its seed where there are several."""
    return plain(r["shown"]) + (f" (seed {plain(r['seed'])})" if len(record["seeds"]) > 1 else "")


def _many(n: int, word: str) -> str:
    return f"{count(n)} {word}{'' if n == 1 else 's'}"


def lines(said: Any) -> list[Line]:
    """The table: target and retrained model, then every run that came to figures."""
    record = complete(CompareRecord, said)
    marks, out = tradeoff.labels(record), []
    for name, of in ((MODELS["target"], record["target"]), (MODELS["retrained"], record["retrained"])):
        if of:
            blank = ((DASH, ""),) * 4
            out.append(Line(name, plain(of["source"]), None, (*_values(of, record), *blank)))
    for r in record["runs"]:
        if r["done"]:
            rate, took = r["learning_rate"], r["seconds"]
            cells = (
                (f"{rate:g}" if rate is not None else DASH, ""),
                (count(r["steps"]), ""),
                (count(r["tokens"]), ""),
                (duration(took["steps"]), f"asked in {duration(took['evaluation'])}"),
            )
            mark, all_cells = marks[str(r["label"])], (*_values(r, record), *cells)
            out.append(Line(plain(r["shown"]), _hint(r), mark, all_cells, plain(r["seed"])))
    return out


def _hint(r: ComparedRun) -> str:
    """Method, seed and the parameters that the recipe set, in one small line; the record has the others too."""
    given = [f"{k}={plain(v)}" for k, v in r["given"].items() if k not in r["choice"]]
    method = r["method"]["name"]
    first = [] if method == r["label"] else [plain(method)]
    return ", ".join([*first, f"seed {plain(r['seed'])}", *given])


def _values(of: ComparedRun | ComparedModel, record: CompareRecord) -> tuple[tuple[str, str], ...]:
    """(value, interval) of the forget figure and of utility."""
    out = []
    for figure in (record["forget_figure"], record["utility_figure"]):
        found = tradeoff.value(of, str(figure))
        middle, low, high = found or (None, None, None)
        within = "" if low is None or high is None else f"{number_words(low)} to {number_words(high)}"
        out.append((number_words(middle), within))
    return tuple(out)


def settings(said: Any) -> list[tuple[str, list[Setting]]]:
    """The groups of settings: what was measured, as on the page of one benchmark run, and what every run was given."""
    record = complete(CompareRecord, said)
    budget, seeds, training = record["budget"], record["seeds"], record["training"]
    spent = named(("Optimizer steps", budget["steps"]), ("Rows of each stream in a step", budget["rows"]))
    spent += [Setting("Seeds", ", ".join(map(plain, seeds)))] if seeds else []
    spent += named(("Adapter", record["adapter"])) + code({"Adapter settings": record["lora"] or None})
    spent += [Setting(str(k), plain(v), "code") for k, v in training.items()]
    own = [Setting(str(r["shown"]), plain(t), "code") for r in record["runs"] if (t := _own(r, training))]
    shown = about.settings(record, MODELS)
    return [*shown[:-1], ("Every run", spent), *([("Training of its own", own)] if own else []), *shown[-1:]]


def _own(r: ComparedRun, shared: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in r["training"].items() if shared.get(k) != v}


def limits(said: Any) -> list[str]:
    """What the page does not show, in plain words, from what the record has."""
    record = complete(CompareRecord, said)
    out = []
    if limit := record["limit"]:
        out.append(
            f"Only the first {count(limit)} rows of each part were asked: a quick look, not the benchmark's figures."
        )
    several = len(record["seeds"]) > 1
    out.append(
        "The intervals (95 %) come from resampling the examples. "
        + ("How far the seeds of one method lie apart is another spread, of which few seeds show little." if several
           else "Another seed would give other figures, and no interval here covers that.")
    )  # fmt: skip
    out.append(
        "Equal budgets are equal optimizer steps and rows. A step does not cost the same for all methods: time and tokens "
        "stand in the table. A method may need more steps, or another learning rate, than it was given."
    )
    if record["unequal_trials"]:
        out.append(
            "The methods had unequal numbers of trials: one that was tried more often has had more chances to do well."
        )
    if any(r["choice"] for r in record["runs"]):
        out.append(
            "Whoever picks the best trial of a grid by these figures picks it on the data that it is measured on."
        )
    if not record["retrained"]:
        out.append("No model that never saw the forget set was asked; how near the runs come to one is not known.")
    out.append(
        "Two figures are drawn of many; each run's own page has the others. Lower is not always better: below the retrained "
        "model, a model may betray by its silence what it was made to forget."
    )
    return [
        *out,
        "This page is not a certificate: it proves neither that the data have no influence left nor a legal duty met.",
    ]
