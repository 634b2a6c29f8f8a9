"""The front of a tuning: a mark a trial, forget figure against utility, the best of each method large, the front ringed.

Drawn as the trade-off figure of a comparison is, on the half of the rows that did not choose the best.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge.files import replace_text, replacing_file
from expunge.record import complete
from expunge.record_types import TunedModel, TunedRun, TuneRecord
from expunge.report.draw import tradeoff
from expunge.report.draw.curves import COLOURS, Chart, png, svg
from expunge.report.draw.tradeoff import PALETTE, RUN_COLOURS, SIZE, TARGET, Mark, Point

FILES = ("front.svg", "front.png")


def marks(raw_record: Any) -> dict[str, Mark]:
    """The methods in the order of the record, and the mark of each."""
    record = complete(TuneRecord, raw_record)
    labels = dict.fromkeys(str(it["label"]) for it in [*record["methods"], *record["runs"]])
    return {label: tradeoff.mark(index) for index, label in enumerate(labels)}


def point(label: str, model: TunedRun | TunedModel, record: TuneRecord) -> Point | None:
    """The mark of a trial or a model on the second half; None where one of its two figures is missing."""
    x, y = (_value(model, record[key]) for key in ("utility_figure", "forget_figure"))
    return Point(label, x, y) if x and y else None


def _value(model: Any, figure: str | None) -> tuple[float, float | None, float | None] | None:
    return tradeoff.value(model, str(figure)) if figure else None


def chart(raw_record: Any, axes_names: tuple[str, str]) -> Chart | None:
    """The figure, ``axes_names`` those of utility and of the forget figure; None where no trial has both."""
    record = complete(TuneRecord, raw_record)
    trials = _trials(record)
    if not trials:
        return None
    shown = [*(replace(p, label=str(run["name"])) for run, p in trials), *_models(record).values()]
    description = " ".join([f"{axes_names[1]} against {axes_names[0]}.", *map(tradeoff.words_of, shown)])
    picture = svg("front", description, _painter(record, axes_names), colours=RUN_COLOURS, size=SIZE)
    return Chart(description.partition(".")[0], picture)


def write(raw_record: Any, axes_names: tuple[str, str], folder: str | os.PathLike[str]) -> None:
    """Write ``front.svg``, which follows the reader into dark mode, and ``front.png`` on a light page."""
    record = complete(TuneRecord, raw_record)
    figure = chart(record, axes_names)
    if figure is None:
        for name in FILES:  # left by an earlier call
            (Path(folder) / name).unlink(missing_ok=True)
        return
    standalone = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif"{figure.svg.removeprefix("<svg")}'
    head, close, body = standalone.partition(">")
    css = tradeoff.css(alone=True)
    replace_text(Path(folder) / FILES[0], f"{head}{close}<style>{css}</style>{body}\n")
    with replacing_file(Path(folder) / FILES[1]) as temporary:
        temporary.write_bytes(png("front", _painter(record, axes_names), size=SIZE))


def _trials(record: TuneRecord) -> list[tuple[TunedRun, Point]]:
    drawn = ((run, point(str(run["label"]), run, record)) for run in record["runs"] if run["state"] == "finished")
    return [(run, p) for run, p in drawn if p]


def _models(record: TuneRecord) -> dict[str, Point]:
    sources: Mapping[str, TunedModel | None] = {"target": record["target"], "reference": record["reference"]}
    return {role: p for role, source in sources.items() if source and (p := point(role, source, record))}


def _painter(record: TuneRecord, axes_names: tuple[str, str]) -> Any:
    trials, models, styles = _trials(record), _models(record), marks(record)
    best = {m["best"] for m in record["methods"]}
    lower = record["forget_better"] != "higher"

    def draw(axes: Any) -> None:
        ink, grid = COLOURS["ink"][0], COLOURS["grid"][0]
        plain = [(run, p if run["name"] in best else _bare(p)) for run, p in trials]
        tradeoff.frame(axes, [*(p for _, p in plain), *models.values()], axes_names, lower)
        axes.grid(color=grid, linewidth=0.8)
        if reference := models.get("reference"):
            axes.axvline(reference.x[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
            axes.axhline(reference.y[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
        for run, p in plain:
            style = styles[p.label]
            colour, size = PALETTE[style.colour][0], 9.5 if run["name"] in best else 5
            tradeoff.put(axes, p, colour, style.shape, size, full=True)
            if run["front"]:
                ring = {"markerfacecolor": "none", "markeredgecolor": ink, "markeredgewidth": 1.1, "zorder": 5}
                axes.plot([p.x[0]], [p.y[0]], "o", markersize=size + 6, **ring)
        for role, p in models.items():
            tradeoff.put(axes, p, TARGET, "o" if role == "target" else "D", 10, full=False)
        named = [
            p if run["name"] in best else replace(p, label="") for run, p in plain
        ]  # a name stands beside the best
        tradeoff.write_names(axes, named, models, styles)

    return draw


def _bare(p: Point) -> Point:
    """The mark without its intervals: those of all trials would cover one another."""
    return Point(p.label, (p.x[0], None, None), (p.y[0], None, None))
