"""``tune.json`` -> the page of a tuning: the best of each method, the trade-off front, every trial, and the limits.

Pure functions from that record to text; ``front`` draws.  Any part of the record may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.files import replace_text
from expunge.record import complete
from expunge.record_types import TunedModel, TunedRun, TuneRecord
from expunge.report.bench_page import number_words
from expunge.report.compare_page import Line, figure_name
from expunge.report.draw import front, tradeoff
from expunge.report.format import DASH, count, day, duration, plain
from expunge.report.html import FILE, page
from expunge.report.settings import Setting, code_lines, setting_lines

BLANK = (DASH, "")


def write_report(raw_record: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html``, ``front.svg`` and ``front.png`` into the folder of a tuning; no torch."""
    record = complete(TuneRecord, raw_record)
    front.write(record, names(record), folder)
    return replace_text(Path(folder) / FILE, render(record))


def render(raw_record: Mapping[str, Any]) -> str:
    """The page of a ``tune.json``; it quotes none of the data."""
    record = complete(TuneRecord, raw_record)
    utility, forget = names(record)
    return page(
        "tune.html.j2",
        source="the record of the tuning",
        version=record["expunge"] or "",
        title=title(record),
        created=day(record["created"]) if record["created"] else "",
        summary=summary(record),
        benchmark=record["benchmark"],
        reference=record["reference"] is not None,
        style=tradeoff.css(),
        chart=front.chart(record, (utility, forget)),
        best_columns=["Score", "Chosen by", "Forgotten", "Retained", forget, utility, "Trials"],
        best=best_lines(record),
        columns=["Score", "Chosen by", forget, utility, "Steps", "Time"],
        lines=lines(record),
        warnings=[plain(w) for w in record["warnings"]],
        settings=settings(record),
        limits=limits(record),
    )


def names(raw_record: Any) -> tuple[str, str]:
    """The names of the axes: utility, and the forget figure."""
    record = complete(TuneRecord, raw_record)
    utility, forget = record["utility_figure"], record["forget_figure"]
    return figure_name(utility) if utility else "Utility", figure_name(str(forget))


def title(raw_record: Any) -> str:
    """The page's title."""
    labels = [plain(m["label"]) for m in complete(TuneRecord, raw_record)["methods"]]
    return f"{', '.join(labels[:3])}{' …' if len(labels) > 3 else ''} tuned"


def summary(raw_record: Any) -> str:
    """The trials, and the best of each method, in a few sentences."""
    record = complete(TuneRecord, raw_record)
    n = len(record["methods"])
    of_each = f"{_plural(record['trials'], 'trial')} of {_plural(n, 'method')}" + (" each" if n > 1 else "")
    steps = record["budget"]["steps"]
    text = f"{of_each}, at most {count(steps)} steps a trial."
    by_name = {r["name"]: r for r in record["runs"]}
    ranked = [(m["label"], by_name[m["best"]]) for m in record["methods"] if m["best"] in by_name]
    ranked.sort(key=lambda pair: -(pair[1]["score_second"] or 0))
    if ranked:
        best = ", ".join(f"{label} {number_words(run['score_second'])}" for label, run in ranked)
        text += f" The best trials' scores on rows that did not choose them: {best}."
    return text


def _plural(n: float | None, word: str) -> str:
    return f"{count(n)} {word}{'' if n == 1 else 's'}"


def best_lines(raw_record: Any) -> list[Line]:
    """A line for target and reference model and for the best trial of each method."""
    record = complete(TuneRecord, raw_record)
    marks, out = front.marks(record), []
    by_name = {r["name"]: r for r in record["runs"]}
    for role, model in (("target", record["target"]), ("reference", record["reference"])):
        if model:
            out.append(Line(role, plain(model["source"]), None, (*(BLANK,) * 4, *_figures(model, record), BLANK)))
    for method in record["methods"]:
        ended = ", ".join(f"{count(method[k])} {k}" for k in ("pruned", "failed") if method[k])
        trials = (count(method["finished"]), ended)
        mark, run = marks[str(method["label"])], by_name.get(method["best"])
        if run:
            values = [(number_words(run[k]), "") for k in ("score_second", "score_first", "forgotten", "retained")]
            cells = (*values, *_figures(run, record), trials)
        else:
            cells = (*(BLANK,) * 6, trials)
        hint = ", ".join(filter(None, [plain(run["name"]), _choice(run)])) if run else "no trial finished"
        out.append(Line(plain(method["label"]), hint, mark, cells))
    return out


def lines(raw_record: Any) -> list[Line]:
    """A line for every trial, method by method, the best first; those that did not finish come last."""
    record = complete(TuneRecord, raw_record)
    marks = front.marks(record)
    order = {label: n for n, label in enumerate(marks)}
    runs = sorted(
        record["runs"],
        key=lambda r: (order.get(str(r["label"]), 0), r["state"] != "finished", -(r["score_first"] or 0)),
    )
    return [Line(plain(r["name"]), _choice(r), marks.get(str(r["label"])), _cells(r, record)) for r in runs]


def _cells(run: TunedRun, record: TuneRecord) -> tuple[tuple[str, str], ...]:
    steps, took = (count(run["steps"]), ""), (duration(run["seconds"]), "")
    if run["state"] != "finished":
        last = run["intermediate"][-1]["value"] if run["intermediate"] else None
        so_far = (DASH, f"{number_words(last)} when it ended" if last is not None else "")
        what = run["state"] or DASH if run["state"] == "pruned" else f"failed: {plain(run['said'])}"
        return ((what, ""), so_far, BLANK, BLANK, steps, took)
    scores = [(number_words(run["score_second"]), "on the front" if run["front"] else "")]
    scores.append((number_words(run["score_first"]), ""))
    return (*scores, *_figures(run, record), steps, took)


def _choice(run: TunedRun) -> str:
    """What a trial tried, in one small line."""
    return ", ".join(f"{k}={f'{v:.3g}' if isinstance(v, float) else plain(v)}" for k, v in run["choice"].items())


def _figures(model: TunedRun | TunedModel, record: TuneRecord) -> tuple[tuple[str, str], ...]:
    """(value, interval) of the forget figure and of utility, on the second half."""
    out = []
    for figure in (record["forget_figure"], record["utility_figure"]):
        value = tradeoff.value(model, figure) if figure else None  # type: ignore[arg-type]
        middle, low, high = value or (None, None, None)
        within = "" if low is None or high is None else f"{number_words(low)} to {number_words(high)}"
        out.append((number_words(middle), within))
    return tuple(out)


def settings(raw_record: Any) -> list[tuple[str, list[Setting]]]:
    """The groups of settings: the budget and the objective, what was searched, the models, the software."""
    record = complete(TuneRecord, raw_record)
    budget = record["budget"]
    of_all = setting_lines(
        ("Trials of each method", record["trials"]),
        ("Steps of a trial, at most", budget["steps"]),
        ("Rows of each stream in a step", budget["rows"]),
        ("Maximised", record["objective"]),
        ("Pruned", record["prune"]),
        ("Seed", record["seed"]),
        ("Adapter", record["adapter"]),
    ) + [Setting(str(k), plain(v), "code") for k, v in record["training"].items()]
    for half, number in record["rows"].items():
        counted = ", ".join(f"{part} {count(n)}" for part, n in number.items())
        of_all.append(Setting(f"Rows of the {half} half", counted))
    models = []
    for role, model in (("Target", record["target"]), ("Reference", record["reference"])):
        if model:
            models += setting_lines((role, model["source"])) + code_lines(
                {f"{role}, fingerprint": model["fingerprint"]}
            )
    groups = [("Every trial", of_all)]
    for method in record["methods"]:
        stays = [Setting(f"{k} stays", plain(v), "code") for k, v in method["parameters"].items()]
        searched = [Setting(str(k), str(v), "code") for k, v in method["search"].items()]
        groups.append((f"Searched of {plain(method['label'])}", [*stays, *searched]))
    software = code_lines({"expunge": record["expunge"], **record["versions"], "Command": record["command"]})
    return [(name, of) for name, of in [*groups, ("Models", models), ("Software", software)] if of]


def limits(raw_record: Any) -> list[str]:
    """What the page does not show, in plain words, from what the record has."""
    record = complete(TuneRecord, raw_record)
    out = [
        "The best trial of a method is chosen by one half of the rows and reported on the other. Both halves were trained "
        "on; only the choice did not see the second.",
        "All trials have one seed. Another seed gives other figures, and of many trials the best owes something to luck: "
        "run the best recipe with other seeds before you rely on it.",
        "Equal budgets are equal numbers of trials and of steps at most. A step does not cost the same for all methods, and "
        "a method with many settings to search needs more trials than one with few.",
    ]
    if any(r["state"] == "pruned" for r in record["runs"]):
        out.append(
            "A trial that was pruned was worse than the median of its method's trials at some step; it might still have won."
        )
    if record["reference"] is None:
        out.append(
            "No model that never saw the forget rows was measured; how near the trials come to one is not known."
        )
    return [
        *out,
        "Two figures are drawn of many. A forget figure at the reference model's level is no proof that the rows are "
        "forgotten: `expunge bench` measures more.",
        "This page is not a certificate: it proves neither that the data have no influence left nor a legal duty met.",
    ]
