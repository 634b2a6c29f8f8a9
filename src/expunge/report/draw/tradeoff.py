"""The trade-off figure: forget against utility, a mark a run with its intervals, target and retrained model marked.

A method has a colour and a shape of its own (42 pairs before one repeats), and its name is written beside one of its marks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.files import replace_text, replacing_file
from expunge.record import complete
from expunge.record_types import ComparedModel, ComparedRun, CompareRecord
from expunge.report.draw.curves import COLOURS, Chart, Size, pdf, png, svg
from expunge.report.draw.labels import Label, place

SIZE = Size(912, 560, left=52, right=16, top=34)
# CSS variable -> its value in light and in dark; Okabe–Ito's hues, dark enough on white, light enough on black.
PALETTE = {
    "--run-0": ("#0067a3", "#5db1ea"),
    "--run-1": ("#b84f00", "#f0894a"),
    "--run-2": ("#007a5c", "#45c9a2"),
    "--run-3": ("#a34f7f", "#d993bb"),
    "--run-4": ("#7d6400", "#dcbf45"),
    "--run-5": ("#4c45b0", "#a79ff2"),
    "--target": ("#1b1b20", "#ececef"),
}
DARK = {"--muted": "#a3a3ad", "--line": "#34353b", "--page": "#16171a"}  # as on every page
SHAPES = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
HUES = len(PALETTE) - 1
RUN_COLOURS = COLOURS | {name: (light, name) for name, (light, _) in PALETTE.items()}
TARGET = PALETTE["--target"][0]


@dataclass(frozen=True)
class Point:
    """A mark: utility ``x`` and forget figure ``y``, each (value, low, high), the ends None where there is no interval."""

    label: str
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Mark:
    """The style of a method's marks: a key of ``PALETTE`` and one of ``SHAPES``."""

    colour: str
    shape: str

    @property
    def letter(self) -> str:
        """The shape as a character, for a table."""
        return SHAPES[self.shape]


def mark(index: int) -> Mark:
    """The mark of the method number ``index``.

    >>> mark(0), len({mark(i) for i in range(42)})
    (Mark(colour='--run-0', shape='o'), 42)
    """
    return Mark(f"--run-{index % HUES}", list(SHAPES)[index % len(SHAPES)])


def labels(raw_record: Any) -> dict[str, Mark]:
    """The methods of a comparison in the order of its record, and the mark of each."""
    record = complete(CompareRecord, raw_record)
    names = dict.fromkeys(str(r["label"]) for r in record["runs"])
    return {name: mark(index) for index, name in enumerate(names)}


def points(raw_record: Any) -> list[Point]:
    """The runs of a comparison that have both figures."""
    record = complete(CompareRecord, raw_record)
    candidates = (point(str(r["label"]), r, record) for r in record["runs"])
    return [p for p in candidates if p]


def point(label: str, model: ComparedRun | ComparedModel, record: CompareRecord) -> Point | None:
    """The mark of a run or a model, or None where one of its two figures is missing or not finite."""
    x, y = (value(model, str(figure)) for figure in (record["utility_figure"], record["forget_figure"]))
    return Point(label, x, y) if x and y else None


def value(model: ComparedRun | ComparedModel, figure: str) -> tuple[float, float | None, float | None] | None:
    """(value, low, high) of ``part/name`` among the figures of a run or a model."""
    part, _, name = figure.partition("/")
    match = next((f for f in model["figures"] if (f["part"], f["name"]) == (part, name)), None)
    return None if match is None or match["value"] is None else (match["value"], match["low"], match["high"])


def pareto_front(points: Sequence[Point], *, lower: bool) -> list[Point]:
    """The points that no other point dominates (as good in both figures, better in one), by the values alone.

    >>> front = [Point(n, (x, None, None), (y, None, None)) for n, x, y in (("a", 1, 2), ("b", 2, 2), ("c", 1, 1))]
    >>> [p.label for p in pareto_front(front, lower=True)], [p.label for p in pareto_front(front, lower=False)]
    (['b', 'c'], ['b'])
    """

    def utility_and_forgetting(p: Point) -> tuple[float, float]:
        return p.x[0], -p.y[0] if lower else p.y[0]

    def dominates(p: Point, q: Point) -> bool:
        (a, b), (c, d) = utility_and_forgetting(p), utility_and_forgetting(q)
        return a >= c and b >= d and (a, b) != (c, d)

    return [p for p in points if not any(dominates(q, p) for q in points)]


# -- drawing --------------------------------------------------------------------------------------------------------------
def chart(raw_record: Any, axes_names: tuple[str, str]) -> Chart | None:
    """The figure of a comparison, ``axes_names`` those of utility and of the forget figure; None where no run has both."""
    record = complete(CompareRecord, raw_record)
    if not points(record):
        return None
    description = in_words(record, axes_names)
    picture = svg("tradeoff", description, _painter(record, axes_names), colours=RUN_COLOURS, size=SIZE)
    return Chart(description.partition(".")[0], picture)


def in_words(raw_record: Any, axes_names: tuple[str, str]) -> str:
    """Every mark with its numbers as text, for screen readers: the title of the picture."""
    record = complete(CompareRecord, raw_record)
    marks = [*points(record), *_models(record).values()]
    return " ".join([f"{axes_names[1]} against {axes_names[0]}.", *map(words_of, marks)])


def write(raw_record: Any, axes_names: tuple[str, str], folder: str | os.PathLike[str]) -> None:
    """Write ``tradeoff.svg``, which follows the reader into dark mode, ``tradeoff.png`` on a light page, and
    ``tradeoff.pdf`` for print.
    """
    record = complete(CompareRecord, raw_record)
    figure = chart(record, axes_names)
    if figure is None:
        for name in ("tradeoff.svg", "tradeoff.png", "tradeoff.pdf"):  # left by an earlier call
            (Path(folder) / name).unlink(missing_ok=True)
        return
    standalone = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif"{figure.svg.removeprefix("<svg")}'
    head, close, body = standalone.partition(">")
    replace_text(Path(folder) / "tradeoff.svg", f"{head}{close}<style>{css(alone=True)}</style>{body}\n")
    with replacing_file(Path(folder) / "tradeoff.png") as temporary:
        temporary.write_bytes(png("tradeoff", _painter(record, axes_names), size=SIZE))
    with replacing_file(Path(folder) / "tradeoff.pdf") as temporary:
        temporary.write_bytes(pdf("tradeoff", _painter(record, axes_names), size=SIZE))


def css(*, alone: bool = False) -> str:
    """The colours as CSS; ``alone``: with the page's colours too, for a standalone picture."""
    light = {name: pair[0] for name, pair in PALETTE.items()}
    dark = {name: pair[1] for name, pair in PALETTE.items()}
    if alone:
        light |= {COLOURS[name][1]: COLOURS[name][0] for name in ("ink", "grid", "page")}
        dark |= DARK
    rules = [";".join(f"{name}:{colour}" for name, colour in palette.items()) for palette in (light, dark)]
    page = ["svg{background:var(--page)}"] if alone else []
    return "\n".join(
        [f":root{{{rules[0]}}}", f"@media screen and (prefers-color-scheme:dark){{:root{{{rules[1]}}}}}", *page]
    )


def _models(record: CompareRecord) -> dict[str, Point]:
    sources = {"target": record["target"], "retrained": record["retrained"]}
    return {role: p for role, source in sources.items() if source and (p := point(role, source, record))}


def _painter(record: CompareRecord, axes_names: tuple[str, str]) -> Any:
    runs, models, marks = points(record), _models(record), labels(record)
    lower = record["forget_better"] != "higher"

    def draw(axes: Any) -> None:
        ink, grid = COLOURS["ink"][0], COLOURS["grid"][0]
        frame(axes, [*runs, *models.values()], axes_names, lower)
        axes.grid(color=grid, linewidth=0.8)
        if retrained := models.get("retrained"):
            axes.axvline(retrained.x[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
            axes.axhline(retrained.y[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
        for p in runs:
            style = marks[p.label]
            put(axes, p, PALETTE[style.colour][0], style.shape, 7.5, full=True)
        for role, p in models.items():
            put(axes, p, TARGET, "o" if role == "target" else "D", 10, full=False)
        write_names(axes, runs, models, marks)

    return draw


def frame(axes: Any, points: Sequence[Point], names: tuple[str, str], lower: bool) -> None:
    """Set limits around all marks and intervals, the axes' names, and the direction that is better."""
    ink = COLOURS["ink"][0]
    for coordinates, limit in (([p.x for p in points], axes.set_xlim), ([p.y for p in points], axes.set_ylim)):
        values = [v for end in coordinates for v in end if v is not None]
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        limit(low - room, high + room)
    axes.set_xlabel(f"{names[0]}, higher is better →", color=ink, loc="right", labelpad=2)
    better = "lower is more forgotten ↓" if lower else "higher is more forgotten ↑"
    axes.text(0, 1.025, f"{names[1]}, {better}", transform=axes.transAxes, color=ink, ha="left", va="bottom")
    corner = f"better {'↘' if lower else '↗'}"
    axes.text(1, 1.025, corner, transform=axes.transAxes, color=TARGET, ha="right", va="bottom", fontweight="bold")


def put(axes: Any, p: Point, colour: str, shape: str, size: float, *, full: bool) -> None:
    (x, x0, x1), (y, y0, y1) = p.x, p.y
    bars = {"color": colour, "linewidth": 1.2, "alpha": 0.45, "solid_capstyle": "butt", "zorder": 2.5}
    if x0 is not None and x1 is not None:
        axes.plot([x0, x1], [y, y], **bars)
    if y0 is not None and y1 is not None:
        axes.plot([x, x], [y0, y1], **bars)
    face, edge = (colour, COLOURS["page"][0]) if full else ("none", colour)  # so that a run under a model stays visible
    width = 0.8 if full else 2
    size += 1.5 if shape in "PX" else 0  # crosses look smaller
    axes.plot(
        [x], [y], shape, markersize=size, markerfacecolor=face, markeredgecolor=edge, markeredgewidth=width, zorder=4
    )


def write_names(axes: Any, runs: Sequence[Point], models: Mapping[str, Point], marks: Mapping[str, Mark]) -> None:
    """Write each model's name beside its mark, and each method's beside the mark nearest to the mean of its marks."""
    axes.get_xlim(), axes.get_ylim()  # settles the limits, which matplotlib works out late
    box = axes.get_window_extent()

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        return tuple(axes.transData.transform((x, y)))

    entries = [(p, role, TARGET, "bold") for role, p in models.items()]
    entries += [(_middle([p for p in runs if p.label == n]), n, PALETTE[m.colour][0], "normal") for n, m in marks.items()
               if any(p.label == n for p in runs)]  # fmt: skip
    texts, labels = [], []
    for p, name, colour, weight in entries:
        text = axes.text(
            0, 0, name[:32], color=colour, fontweight=weight, fontsize=11, ha="center", va="center", zorder=5
        )
        extent = text.get_window_extent()
        texts.append(text)
        labels.append(Label(to_pixels(p.x[0], p.y[0]), extent.width, extent.height))
    all_points = [*runs, *models.values()]
    bars = [
        (to_pixels(p.x[1], p.y[0]), to_pixels(p.x[2], p.y[0]))
        for p in all_points
        if p.x[1] is not None and p.x[2] is not None
    ]
    bars += [
        (to_pixels(p.x[0], p.y[1]), to_pixels(p.x[0], p.y[2]))
        for p in all_points
        if p.y[1] is not None and p.y[2] is not None
    ]
    places = place(labels, [to_pixels(p.x[0], p.y[0]) for p in all_points], bars, (box.x0, box.y0, box.x1, box.y1))
    to_data = axes.transData.inverted()
    for text, label, (x, y) in zip(texts, labels, places, strict=True):
        text.set_position(to_data.transform((x, y)))
        if (end := label.leader((x, y))) is not None:
            (a, b), (c, d) = to_data.transform(label.anchor), to_data.transform(end)
            axes.plot([a, c], [b, d], color=text.get_color(), linewidth=0.7, alpha=0.7, zorder=3)


def _middle(points: Sequence[Point]) -> Point:
    """The point nearest to the mean of all."""
    x, y = (sum(v) / len(points) for v in ([p.x[0] for p in points], [p.y[0] for p in points]))
    return min(points, key=lambda p: math.hypot(p.x[0] - x, p.y[0] - y))


def words_of(p: Point) -> str:
    """A mark as text, for screen readers."""
    values = []
    for middle, low, high in (p.x, p.y):
        values.append(f"{middle:.3g}" + (f" ({low:.3g} to {high:.3g})" if low is not None and high is not None else ""))
    return f"{p.label}: {' against '.join(reversed(values))}."
