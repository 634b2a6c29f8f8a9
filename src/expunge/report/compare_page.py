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
from expunge.report import about
from expunge.report.bench_page import HEADLINES, Row, number_words
from expunge.report.draw import tradeoff
from expunge.report.format import DASH, count, day, duration, look, mappings, number, plain
from expunge.report.html import FILE, page
from expunge.report.settings import Setting, given

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
    tradeoff.write(said, names(said), folder)
    return replace_text(Path(folder) / FILE, render(said))


def render(said: Mapping[str, Any]) -> str:
    """The page of what a ``compare.json`` says; it quotes none of the data."""
    utility, forget = names(said)
    return page(
        "compare.html.j2",
        source="the record of the comparison",
        version=plain(look(said, "expunge") or ""),
        title=title(said),
        created=day(look(said, "created")) if look(said, "created") else "",
        summary=summary(said),
        benchmark=look(said, "benchmark"),
        paper=about.paper(look(said, "paper")),
        style=tradeoff.css(),
        chart=tradeoff.chart(said, (utility, forget)),
        columns=[forget, utility, "Learning rate", "Steps", "Tokens", "Time"],
        lines=lines(said),
        failed=[(plain(r.get("name")), plain(r.get("said"))) for r in mappings(said, "runs") if not r.get("done")],
        warnings=[plain(w) for w in look(said, "warnings") or []],
        settings=settings(said),
        limits=limits(said),
    )


def names(said: Any) -> tuple[str, str]:
    """What the axes are called: utility, and the forget figure."""
    return figure_name(str(look(said, "utility_figure"))), figure_name(str(look(said, "forget_figure")))


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
    n = len(tradeoff.labels(said))
    return f"{look(said, 'benchmark') or 'A benchmark'}, {count(n)} method{'' if n == 1 else 's'} compared"


def summary(said: Any) -> str:
    """What was run, and, of several, which runs no other one beats, in two sentences."""
    runs = mappings(said, "runs")
    done = [r for r in runs if r.get("done")]
    steps, rows = number(said, "budget", "steps"), number(said, "budget", "rows")
    short = any((number(r, "steps") or 0) < (steps or 0) for r in done)
    each = f", each {'at most ' * short}{count(steps)} steps of {count(rows)} rows" if steps is not None else ""
    text = f"{_many(len(runs), 'run')} of {_many(len(tradeoff.labels(said)), 'method')}{each}"
    text += "." if len(done) == len(runs) else f"; {_many(len(runs) - len(done), 'run')} failed."
    drawn = [p for r in runs if (p := tradeoff.point(_called(r, said), r, said))]
    best = tradeoff.unbeaten(drawn, lower=look(said, "forget_better") != "higher")
    if len(drawn) > 1:
        text += (
            " By the values alone, no other run is at least as good in both figures and better in one than "
            f"{', '.join(p.label for p in best)}; the intervals say how sure."
        )
    return text


def _called(r: Mapping[str, Any], said: Any) -> str:
    """A run's name in a sentence, with its seed where there are several."""
    seeds = look(said, "seeds")
    several = isinstance(seeds, list) and len(seeds) > 1
    return plain(r.get("shown")) + (f" (seed {plain(r.get('seed'))})" if several else "")


def _many(n: int, word: str) -> str:
    return f"{count(n)} {word}{'' if n == 1 else 's'}"


def lines(said: Any) -> list[Line]:
    """The table: target and retrained model, then every run that came to figures."""
    marks, out = tradeoff.labels(said), []
    for who, name in MODELS.items():
        if look(said, who):
            blank = ((DASH, ""),) * 4
            out.append(Line(name, plain(look(said, who, "source")), None, (*_values(look(said, who), said), *blank)))
    for r in mappings(said, "runs"):
        if r.get("done"):
            rate = number(r, "learning_rate")
            cells = (
                (f"{rate:g}" if rate is not None else DASH, ""),
                (count(number(r, "steps")), ""),
                (count(number(r, "tokens")), ""),
                (duration(number(r, "seconds", "steps")), f"asked in {duration(number(r, 'seconds', 'evaluation'))}"),
            )
            mark, all_cells = marks[str(r.get("label"))], (*_values(r, said), *cells)
            out.append(Line(plain(r.get("shown")), _hint(r), mark, all_cells, plain(r.get("seed"))))
    return out


def _hint(r: Mapping[str, Any]) -> str:
    """Method, seed and the parameters that the recipe set, in one small line; the record has the others too."""
    parameters, choice = look(r, "given"), look(r, "choice")
    shown = choice if isinstance(choice, Mapping) else {}
    mine = parameters.items() if isinstance(parameters, Mapping) else ()
    given_ = [f"{k}={plain(v)}" for k, v in mine if k not in shown]
    method = look(r, "method", "name")
    first = [] if method == r.get("label") else [plain(method)]
    return ", ".join([*first, f"seed {plain(r.get('seed'))}", *given_])


def _values(of: Any, said: Any) -> tuple[tuple[str, str], ...]:
    """(value, interval) of the forget figure and of utility."""
    out = []
    for key in ("forget_figure", "utility_figure"):
        found = tradeoff.value(of, str(look(said, key)))
        middle, low, high = found or (None, None, None)
        within = "" if low is None or high is None else f"{number_words(low)} to {number_words(high)}"
        out.append((number_words(middle), within))
    return tuple(out)


def settings(said: Any) -> list[tuple[str, list[Setting]]]:
    """The groups of settings: what was measured, as on the page of one benchmark run, and what every run was given."""
    training = look(said, "training")
    seeds = look(said, "seeds")
    spent = given(look(said, "budget"), steps="Optimizer steps", rows="Rows of each stream in a step")
    spent += [Setting("Seeds", ", ".join(map(plain, seeds)))] if isinstance(seeds, list) else []
    spent += given(said, adapter="Adapter")
    spent += [Setting("Adapter settings", plain(look(said, "lora")), "code")] if look(said, "lora") else []
    spent += [Setting(str(k), plain(v), "code") for k, v in (training.items() if isinstance(training, Mapping) else ())]
    own = [Setting(str(r.get("shown")), plain(t), "code") for r in mappings(said, "runs") if (t := _own(r, training))]
    shown = about.settings(said, MODELS)
    return [*shown[:-1], ("Every run", spent), *([("Training of its own", own)] if own else []), *shown[-1:]]


def _own(r: Mapping[str, Any], shared: Any) -> dict[str, Any]:
    common = shared if isinstance(shared, Mapping) else {}
    mine = look(r, "training")
    return {k: v for k, v in (mine.items() if isinstance(mine, Mapping) else ()) if common.get(k) != v}


def limits(said: Any) -> list[str]:
    """What the page does not show, in plain words, from what the record has."""
    out = []
    if limit := number(said, "limit"):
        out.append(
            f"Only the first {count(limit)} rows of each part were asked: a quick look, not the benchmark's figures."
        )
    seeds = look(said, "seeds")
    several = isinstance(seeds, list) and len(seeds) > 1
    out.append(
        "The intervals (95 %) come from resampling the examples. "
        + ("How far the seeds of one method lie apart is another spread, of which few seeds show little." if several
           else "Another seed would give other figures, and no interval here covers that.")
    )  # fmt: skip
    out.append(
        "Equal budgets are equal optimizer steps and rows. A step does not cost the same for all methods: time and tokens "
        "stand in the table. A method may need more steps, or another learning rate, than it was given."
    )
    if look(said, "unequal_trials"):
        out.append(
            "The methods had unequal numbers of trials: one that was tried more often has had more chances to do well."
        )
    if any(look(r, "choice") for r in mappings(said, "runs")):
        out.append(
            "Whoever picks the best trial of a grid by these figures picks it on the data that it is measured on."
        )
    if not look(said, "retrained"):
        out.append("No model that never saw the forget set was asked; how near the runs come to one is not known.")
    out.append(
        "Two figures are drawn of many; each run's own page has the others. Lower is not always better: below the retrained "
        "model, a model may betray by its silence what it was made to forget."
    )
    return [
        *out,
        "This page is not a certificate: it proves neither that the data have no influence left nor a legal duty met.",
    ]
