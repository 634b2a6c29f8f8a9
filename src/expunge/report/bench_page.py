"""``figures.json`` -> the page of figures: columns, rows, groups, the summary sentence, and the limits.

Pure functions from that record to text, as ``tables`` for a run's record; ``forest`` draws, ``about`` lists what was
measured.  Any part of the record may be missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.files import replace_text
from expunge.record import complete
from expunge.record_types import FigureInfo, FiguresRecord
from expunge.report import about
from expunge.report.draw import forest
from expunge.report.format import DASH, count, day, plain
from expunge.report.html import FILE, page
from expunge.report.run_page import Tile

LABELS = (
    (r"^mia ", ""),
    (r"\brouge l\b", "ROUGE-L"),
    (r"\brouge 1\b", "ROUGE-1"),
    (r"\brouge\b", "ROUGE"),
    (r"\bmin k plus plus\b", "Min-K++"),
    (r"\bmin k\b", "Min-K"),
    (r"\bauc\b", "AUC"),
    (r"\btpr at 1 percent\b", "hits at 1 % false alarms"),
    (r"\bprivleak\b", "PrivLeak"),
)
HEADLINES = {
    ("forget", "probability"): "Forget probability",
    ("all", "model_utility"): "Model utility",
    ("forget", "forget_quality"): "Forget quality",
    ("forget", "mia_min_k_auc"): "Min-K attack, AUC",
    ("forget", "privleak"): "PrivLeak",
}
TITLES = {
    "forget": "What is known of the forget set",
    "rest": "What was kept",
    "privacy": "What a membership attack sees",
}


@dataclass(frozen=True)
class Row:
    """One figure of each model: ``figures`` maps ``target``, ``model``, ``retrained`` to its figure in the record."""

    part: str
    name: str
    figures: Mapping[str, FigureInfo]

    @property
    def label(self) -> str:
        """The figure's display name.

        >>> Row("forget", "mia_min_k_plus_plus_auc", {}).label, Row("forget", "rouge_l_recall", {}).label
        ('Min-K++ AUC', 'ROUGE-L recall')
        """
        text = self.name.replace("_", " ")
        for pattern, words in LABELS:
            text = re.sub(pattern, words, text)
        return text[:1].upper() + text[1:]

    @property
    def group(self) -> str:
        """The key of ``TITLES`` that it is listed under."""
        if self.name.startswith(("mia_", "privleak")):
            return "privacy"
        return "forget" if self.part.startswith("forget") else "rest"

    @property
    def note(self) -> str:
        """The note of how to compare it, from the first model that has one, the unlearned one first."""
        return next((f["note"] for f in self._by_weight() if f["note"]), "")

    @property
    def n(self) -> float | None:
        """The number of examples."""
        return next((f["n"] for f in self._by_weight()), None)

    def interval(self, role: str) -> str:
        """The 95 % interval, or nothing where there is none."""
        figure = self.figures.get(role)
        if figure is None or figure["low"] is None or figure["high"] is None:
            return ""
        return f"{number_words(figure['low'])} to {number_words(figure['high'])}"

    def _by_weight(self) -> list[FigureInfo]:
        return [self.figures[role] for role in ("model", "target", "retrained") if role in self.figures]


# -- lookup ----------------------------------------------------------------------------------------------------------------
def columns(raw_record: Any) -> dict[str, str]:
    """The models that the record has figures of, in the order of the page, with the name of each."""
    record = complete(FiguresRecord, raw_record)
    names = {"target": "target", "model": "unlearned" if record["target"] else "model", "retrained": "retrained"}
    return {role: name for role, name in names.items() if _figures(record, role)}


def rows(raw_record: Any) -> list[Row]:
    """Every figure once, in the order of the record, with each model's value."""
    record = complete(FiguresRecord, raw_record)
    by_name: dict[tuple[str, str], dict[str, FigureInfo]] = {}
    for role in ("model", "target", "retrained"):
        for f in _figures(record, role):
            by_name.setdefault((f["part"] or "", str(f["name"])), {})[role] = f
    return [Row(part, name, figures) for (part, name), figures in by_name.items()]


def _figures(record: FiguresRecord, role: str) -> list[FigureInfo]:
    return record["figures"] if role == "model" else record["beside"].get(role, [])


def number_words(value: float | None) -> str:
    """Three decimals, two digits of a small or a large number: 0.821, 4.1e-05, 1.2e+04.

    >>> number_words(0.8213), number_words(4.06e-5), number_words(0.0), number_words(None)
    ('0.821', '4.1e-05', '0.000', '–')
    """
    if value is None:
        return DASH
    return f"{value:.3f}" if value == 0 or 0.0005 <= abs(value) < 1000 else f"{value:.2g}"


# -- the page --------------------------------------------------------------------------------------------------------------
def write_report(raw_record: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` into the folder of a benchmark's figures and return the file; no torch, nothing from outside."""
    return replace_text(Path(folder) / FILE, render(raw_record))


def render(raw_record: Mapping[str, Any]) -> str:
    """The page of a ``figures.json``; it quotes none of the benchmark's data."""
    record = complete(FiguresRecord, raw_record)
    models, figure_rows = columns(record), rows(record)
    facts = {"target": record["target"], "model": record["model"], "retrained": record["retrained"]}
    sources = {role: model_facts["source"] for role, model_facts in facts.items() if model_facts}
    groups = []
    for group, heading in TITLES.items():
        if group_rows := [r for r in figure_rows if r.group == group]:
            if group == "rest" and len(group_rows) == len(figure_rows):
                heading = "What was measured"
            chart = forest.forest(group, heading, [_line(r, models) for r in group_rows], models)
            groups.append(
                (group, heading, [(_name(r), r.note, _cells(r, models), count(r.n)) for r in group_rows], chart)
            )
    return page(
        "figures.html.j2",
        source="the figures and what the models said",
        version=record["expunge"] or "",
        title=title(record),
        created=day(record["created"]) if record["created"] else "",
        summary=summary(record),
        benchmark=record["benchmark"],
        paper=about.paper(record["paper"]),
        tiles=tiles(record),
        models=[(role, name, sources.get(role)) for role, name in models.items()],
        groups=groups,
        settings=about.settings(record, models),
        limits=limits(record),
    )


def _name(row: Row) -> str:
    """The row's label, after its part where a table holds several (then in lower case, unless it is an abbreviation)."""
    if row.group != "rest" or row.part in ("", "all"):
        return row.label
    label = row.label if row.label[:2].isupper() else row.label[:1].lower() + row.label[1:]
    return f"{row.part.replace('_', ' ').capitalize()}: {label}"


def _cells(row: Row, models: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(model, value, interval) of each column."""
    return [
        (role, number_words(f["value"] if (f := row.figures.get(role)) else None), row.interval(role))
        for role in models
    ]


def _line(row: Row, models: Mapping[str, str]) -> forest.Line:
    ends = {role: (f["value"], f["low"], f["high"]) for role in models if (f := row.figures.get(role))}
    return forest.Line(_name(row), ends)


def title(raw_record: Any) -> str:
    """The page's title."""
    record = complete(FiguresRecord, raw_record)
    unlearning, benchmark = record["unlearning"], record["benchmark"] or "A benchmark"
    method = unlearning and unlearning["name"]
    return f"{benchmark}, unlearned with {method}" if method else f"{benchmark}, measured"


def summary(raw_record: Any) -> str:
    """The result in one sentence, from the headline figures that the record has."""
    record = complete(FiguresRecord, raw_record)
    parts = []
    for key, words in zip(HEADLINES, ("the probability of the forget answers", "model utility"), strict=False):
        values = _values(record, *key)
        if "model" in values:
            unchanged = values.get("target") in (None, values["model"])
            before = (
                f"went from {values['target']} to" if not unchanged else "stayed at" if "target" in values else "is"
            )
            beside = f" (retrained model: {values['retrained']})" if "retrained" in values else ""
            parts.append(f"{words} {before} {values['model']}{beside}")
    models = columns(record)
    subject = {2: "Two models were", 3: "Three models were"}.get(len(models), "One model was")
    sentence = f"{subject} asked all that {record['benchmark'] or 'the benchmark'} asks"
    return f"{sentence}; {' and '.join(parts)}." if parts else f"{sentence}."


def tiles(raw_record: Any) -> list[Tile]:
    """The headline strip: up to four figures, the most important first."""
    record = complete(FiguresRecord, raw_record)
    by_key = {(r.part, r.name): r for r in rows(record)}
    headline_rows = [by_key[key] for key in HEADLINES if key in by_key][:4] or list(by_key.values())[:4]
    out = []
    for row in headline_rows:
        values = _values(record, row.part, row.name)
        changes = [values[role] for role in ("target", "model") if role in values]
        note = f"retrained: {values['retrained']}" if "retrained" in values else row.interval("model") or row.note
        name = HEADLINES.get((row.part, row.name)) or _name(row)
        out.append(Tile(name, " → ".join(changes) or DASH, note))
    return out


def _values(record: FiguresRecord, part: str, name: str) -> dict[str, str]:
    row = next((r for r in rows(record) if (r.part, r.name) == (part, name)), Row(part, name, {}))
    return {role: number_words(f["value"]) for role, f in row.figures.items()}


# -- limits ----------------------------------------------------------------------------------------------------------------
def limits(raw_record: Any) -> list[str]:
    """What the page does not show, in plain words, from what the record has."""
    record = complete(FiguresRecord, raw_record)
    names = {r.name for r in rows(record)}
    left_out = record["data"]["left_out"]
    messages = []
    if limit := record["limit"]:
        messages.append(
            f"Only the first {count(limit)} rows of each part were asked: a quick look, not the benchmark's figures."
        )
    if left_out:
        messages.append(f"Left out, because the data were not there: {', '.join(map(plain, left_out))}.")
    messages.append(
        "The intervals (95 %) come from resampling the examples. Another seed of the training would give other figures, "
        "and no interval here covers that."
    )
    if "forget_quality" in names:
        messages.append(
            "Forget quality is the p-value of a KS test. A high one does not show that two models are alike; with few rows "
            "it is high for nearly any two. Whether they are shown to be equal is said at the truth ratio difference (TOST)."
        )
    if not record["retrained"]:
        messages.append(
            "No model that never saw the forget set was asked; how near the figures are to one is not known."
        )
    if any("rouge" in name for name in names):
        messages.append(
            "ROUGE counts shared words. It stands here for comparison with published figures; an answer in other words may "
            "say the same thing."
        )
    messages.append(
        "The figures say what a model answers to these questions, asked in this way, and what these attacks see. A question "
        "put differently, a quantised copy or a little further training may bring an answer back."
    )
    certificate = (
        "This page is not a certificate: it proves neither that the data have no influence left nor a legal duty met."
    )
    return [*messages, certificate]
