"""What ``figures.json`` says -> the page of figures: columns, rows, groups, the sentence on top, and what it does not show.

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
    """One figure of each model: ``figures`` maps ``target``, ``model``, ``retrained`` to what the record holds of it."""

    part: str
    name: str
    figures: Mapping[str, FigureInfo]

    @property
    def label(self) -> str:
        """The figure's name as people read it.

        >>> Row("forget", "mia_min_k_plus_plus_auc", {}).label, Row("forget", "rouge_l_recall", {}).label
        ('Min-K++ AUC', 'ROUGE-L recall')
        """
        text = self.name.replace("_", " ")
        for pattern, words in LABELS:
            text = re.sub(pattern, words, text)
        return text[:1].upper() + text[1:]

    @property
    def group(self) -> str:
        """Which of ``TITLES`` it stands under."""
        if self.name.startswith(("mia_", "privleak")):
            return "privacy"
        return "forget" if self.part.startswith("forget") else "rest"

    @property
    def note(self) -> str:
        """What a reader has to know to compare it; of the unlearned model first."""
        return next((f["note"] for f in self._by_weight() if f["note"]), "")

    @property
    def n(self) -> float | None:
        """How many examples it is of."""
        return next((f["n"] for f in self._by_weight()), None)

    def interval(self, who: str) -> str:
        """The 95 % interval, or nothing where there is none."""
        of = self.figures.get(who)
        if of is None or of["low"] is None or of["high"] is None:
            return ""
        return f"{number_words(of['low'])} to {number_words(of['high'])}"

    def _by_weight(self) -> list[FigureInfo]:
        return [self.figures[who] for who in ("model", "target", "retrained") if who in self.figures]


# -- looking up ------------------------------------------------------------------------------------------------------------
def columns(said: Any) -> dict[str, str]:
    """Which models the record has figures of, in the order of the page, and what each is called."""
    record = complete(FiguresRecord, said)
    names = {"target": "target", "model": "unlearned" if record["target"] else "model", "retrained": "retrained"}
    return {who: name for who, name in names.items() if _figures(record, who)}


def rows(said: Any) -> list[Row]:
    """Every figure once, in the order of the record, with each model's value."""
    record = complete(FiguresRecord, said)
    found: dict[tuple[str, str], dict[str, FigureInfo]] = {}
    for who in ("model", "target", "retrained"):
        for f in _figures(record, who):
            found.setdefault((f["part"] or "", str(f["name"])), {})[who] = f
    return [Row(part, name, figures) for (part, name), figures in found.items()]


def _figures(record: FiguresRecord, who: str) -> list[FigureInfo]:
    return record["figures"] if who == "model" else record["beside"].get(who, [])


def number_words(value: float | None) -> str:
    """Three decimals, two digits of a small or a large number: 0.821, 4.1e-05, 1.2e+04.

    >>> number_words(0.8213), number_words(4.06e-5), number_words(0.0), number_words(None)
    ('0.821', '4.1e-05', '0.000', '–')
    """
    if value is None:
        return DASH
    return f"{value:.3f}" if value == 0 or 0.0005 <= abs(value) < 1000 else f"{value:.2g}"


# -- the page --------------------------------------------------------------------------------------------------------------
def write_report(said: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` into the folder of a benchmark's figures and return the file; no torch, nothing from outside."""
    return replace_text(Path(folder) / FILE, render(said))


def render(said: Mapping[str, Any]) -> str:
    """The page of what a ``figures.json`` says; it quotes none of the benchmark's data."""
    record = complete(FiguresRecord, said)
    models, found = columns(record), rows(record)
    facts = {"target": record["target"], "model": record["model"], "retrained": record["retrained"]}
    sources = {who: of["source"] for who, of in facts.items() if of}
    groups = []
    for group, heading in TITLES.items():
        if mine := [r for r in found if r.group == group]:
            if group == "rest" and len(mine) == len(found):
                heading = "What was measured"
            chart = forest.forest(group, heading, [_line(r, models) for r in mine], models)
            groups.append((group, heading, [(_name(r), r.note, _cells(r, models), count(r.n)) for r in mine], chart))
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
        models=[(who, name, sources.get(who)) for who, name in models.items()],
        groups=groups,
        settings=about.settings(record, models),
        limits=limits(record),
    )


def _name(row: Row) -> str:
    """The row's label, after its part where a table holds several; it begins small there unless it is an abbreviation."""
    if row.group != "rest" or row.part in ("", "all"):
        return row.label
    label = row.label if row.label[:2].isupper() else row.label[:1].lower() + row.label[1:]
    return f"{row.part.replace('_', ' ').capitalize()}: {label}"


def _cells(row: Row, models: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(model, value, interval) of each column."""
    return [
        (who, number_words(f["value"] if (f := row.figures.get(who)) else None), row.interval(who)) for who in models
    ]


def _line(row: Row, models: Mapping[str, str]) -> forest.Line:
    ends = {who: (f["value"], f["low"], f["high"]) for who in models if (f := row.figures.get(who))}
    return forest.Line(_name(row), ends)


def title(said: Any) -> str:
    """What was done, in a few words."""
    record = complete(FiguresRecord, said)
    unlearning, benchmark = record["unlearning"], record["benchmark"] or "A benchmark"
    method = unlearning and unlearning["name"]
    return f"{benchmark}, unlearned with {method}" if method else f"{benchmark}, measured"


def summary(said: Any) -> str:
    """What came out, in one sentence, from the headline figures that are there."""
    record = complete(FiguresRecord, said)
    parts = []
    for key, words in zip(HEADLINES, ("the probability of the forget answers", "model utility"), strict=False):
        values = _values(record, *key)
        if "model" in values:
            same = values.get("target") in (None, values["model"])
            before = f"went from {values['target']} to" if not same else "stayed at" if "target" in values else "is"
            beside = f" (retrained model: {values['retrained']})" if "retrained" in values else ""
            parts.append(f"{words} {before} {values['model']}{beside}")
    models = columns(record)
    who = {2: "Two models were", 3: "Three models were"}.get(len(models), "One model was")
    asked = f"{who} asked all that {record['benchmark'] or 'the benchmark'} asks"
    return f"{asked}; {' and '.join(parts)}." if parts else f"{asked}."


def tiles(said: Any) -> list[Tile]:
    """The headline strip: up to four figures, those that people ask for first."""
    record = complete(FiguresRecord, said)
    found = {(r.part, r.name): r for r in rows(record)}
    chosen = [found[key] for key in HEADLINES if key in found][:4] or list(found.values())[:4]
    out = []
    for row in chosen:
        values = _values(record, row.part, row.name)
        steps = [values[who] for who in ("target", "model") if who in values]
        note = f"retrained: {values['retrained']}" if "retrained" in values else row.interval("model") or row.note
        name = HEADLINES.get((row.part, row.name)) or _name(row)
        out.append(Tile(name, " → ".join(steps) or DASH, note))
    return out


def _values(record: FiguresRecord, part: str, name: str) -> dict[str, str]:
    row = next((r for r in rows(record) if (r.part, r.name) == (part, name)), Row(part, name, {}))
    return {who: number_words(f["value"]) for who, f in row.figures.items()}


# -- limits ----------------------------------------------------------------------------------------------------------------
def limits(said: Any) -> list[str]:
    """What the page does not show, in plain words, from what the record has."""
    record = complete(FiguresRecord, said)
    names = {r.name for r in rows(record)}
    left = record["data"]["left_out"]
    out = []
    if limit := record["limit"]:
        out.append(
            f"Only the first {count(limit)} rows of each part were asked: a quick look, not the benchmark's figures."
        )
    if left:
        out.append(f"Left out, because the data were not there: {', '.join(map(plain, left))}.")
    out.append(
        "The intervals (95 %) come from resampling the examples. Another seed of the training would give other figures, "
        "and no interval here covers that."
    )
    if "forget_quality" in names:
        out.append(
            "Forget quality is the p-value of a KS test. A high one does not show that two models are alike; with few rows "
            "it is high for nearly any two. Whether they are shown to be equal is said at the truth ratio difference (TOST)."
        )
    if not record["retrained"]:
        out.append("No model that never saw the forget set was asked; how near the figures are to one is not known.")
    if any("rouge" in name for name in names):
        out.append(
            "ROUGE counts shared words. It stands here for comparison with published figures; an answer in other words may "
            "say the same thing."
        )
    out.append(
        "The figures say what a model answers to these questions, asked in this way, and what these attacks see. A question "
        "put differently, a quantised copy or a little further training may bring an answer back."
    )
    certificate = (
        "This page is not a certificate: it proves neither that the data have no influence left nor a legal duty met."
    )
    return [*out, certificate]
