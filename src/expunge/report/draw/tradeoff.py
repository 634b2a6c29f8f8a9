"""The trade-off figure: forget against utility, a mark a run with its intervals, target and retrained model marked.

A method has a colour and a shape of its own (42 pairs before one comes again), and its name stands beside one of its marks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.files import replace_text, replacing_file
from expunge.report.draw.curves import COLOURS, Chart, png, svg
from expunge.report.draw.labels import Label, place
from expunge.report.format import look, mappings, number

SIZE = {"width": 912, "height": 560, "left": 52, "right": 16, "top": 34}
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
    """How a method's marks look: a key of ``PALETTE`` and one of ``SHAPES``."""

    colour: str
    shape: str

    @property
    def letter(self) -> str:
        """The shape as a character, for a table."""
        return SHAPES[self.shape]


def mark(at: int) -> Mark:
    """The mark of the method with that number.

    >>> mark(0), len({mark(i) for i in range(42)})
    (Mark(colour='--run-0', shape='o'), 42)
    """
    return Mark(f"--run-{at % HUES}", list(SHAPES)[at % len(SHAPES)])


def labels(said: Any) -> dict[str, Mark]:
    """The methods of a comparison in the order of its record, and how each is marked."""
    names = dict.fromkeys(str(r.get("label")) for r in mappings(said, "runs"))
    return {name: mark(at) for at, name in enumerate(names)}


def points(said: Any) -> list[Point]:
    """The runs of a comparison that have both figures."""
    found = (point(str(r.get("label")), r, said) for r in mappings(said, "runs"))
    return [p for p in found if p]


def point(label: str, of: Any, said: Any) -> Point | None:
    """The mark of a run or a model, or None where one of its two figures is missing or not finite."""
    x, y = (value(of, str(look(said, key))) for key in ("utility_figure", "forget_figure"))
    return Point(label, x, y) if x and y else None


def value(of: Any, figure: str) -> tuple[float, float | None, float | None] | None:
    """(value, low, high) of ``part/name`` among the figures of a run or a model."""
    part, _, name = figure.partition("/")
    one = next((f for f in mappings(of, "figures") if (f.get("part"), f.get("name")) == (part, name)), None)
    middle = number(one, "value")
    return None if middle is None else (middle, number(one, "low"), number(one, "high"))


def unbeaten(found: Sequence[Point], *, lower: bool) -> list[Point]:
    """The points that no other one equals or betters in both figures and betters in one, by the values alone.

    >>> made = [Point(n, (x, None, None), (y, None, None)) for n, x, y in (("a", 1, 2), ("b", 2, 2), ("c", 1, 1))]
    >>> [p.label for p in unbeaten(made, lower=True)], [p.label for p in unbeaten(made, lower=False)]
    (['b', 'c'], ['b'])
    """

    def both(p: Point) -> tuple[float, float]:
        return p.x[0], -p.y[0] if lower else p.y[0]

    def beats(p: Point, q: Point) -> bool:
        (a, b), (c, d) = both(p), both(q)
        return a >= c and b >= d and (a, b) != (c, d)

    return [p for p in found if not any(beats(q, p) for q in found)]


# -- drawing --------------------------------------------------------------------------------------------------------------
def chart(said: Any, axes_names: tuple[str, str]) -> Chart | None:
    """The figure of a comparison, ``axes_names`` those of utility and of the forget figure; None where no run has both."""
    if not points(said):
        return None
    words = in_words(said, axes_names)
    picture = svg("tradeoff", words, _painter(said, axes_names), colours=RUN_COLOURS, **SIZE)
    return Chart(words.partition(".")[0], picture)


def in_words(said: Any, axes_names: tuple[str, str]) -> str:
    """Every mark with its numbers, for who cannot see it: the title that the picture carries."""
    marks = [*points(said), *_models(said).values()]
    return " ".join([f"{axes_names[1]} against {axes_names[0]}.", *map(_words, marks)])


def write(said: Any, axes_names: tuple[str, str], folder: str | os.PathLike[str]) -> None:
    """Write ``tradeoff.svg``, which follows the reader into dark mode, and ``tradeoff.png`` on a light page."""
    drawn = chart(said, axes_names)
    if drawn is None:
        for name in ("tradeoff.svg", "tradeoff.png"):  # of an earlier time
            (Path(folder) / name).unlink(missing_ok=True)
        return
    own = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif"{drawn.svg.removeprefix("<svg")}'
    head, close, body = own.partition(">")
    replace_text(Path(folder) / "tradeoff.svg", f"{head}{close}<style>{css(alone=True)}</style>{body}\n")
    with replacing_file(Path(folder) / "tradeoff.png") as temporary:
        temporary.write_bytes(png("tradeoff", _painter(said, axes_names), **SIZE))


def css(*, alone: bool = False) -> str:
    """The colours as CSS; ``alone``: of a picture that no page gives the others."""
    light = {name: pair[0] for name, pair in PALETTE.items()}
    dark = {name: pair[1] for name, pair in PALETTE.items()}
    if alone:
        light |= {COLOURS[name][1]: COLOURS[name][0] for name in ("ink", "grid", "page")}
        dark |= DARK
    of = [";".join(f"{name}:{colour}" for name, colour in each.items()) for each in (light, dark)]
    page = ["svg{background:var(--page)}"] if alone else []
    return "\n".join([f":root{{{of[0]}}}", f"@media screen and (prefers-color-scheme:dark){{:root{{{of[1]}}}}}", *page])


def _models(said: Any) -> dict[str, Point]:
    found = {who: point(who, look(said, who), said) for who in ("target", "retrained")}
    return {who: p for who, p in found.items() if p}


def _painter(said: Any, axes_names: tuple[str, str]) -> Any:
    runs, models, marks = points(said), _models(said), labels(said)
    lower = look(said, "forget_better") != "higher"

    def draw(axes: Any) -> None:
        ink, grid = COLOURS["ink"][0], COLOURS["grid"][0]
        _frame(axes, [*runs, *models.values()], axes_names, lower)
        axes.grid(color=grid, linewidth=0.8)
        if beside := models.get("retrained"):
            axes.axvline(beside.x[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
            axes.axhline(beside.y[0], color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
        for p in runs:
            how = marks[p.label]
            _put(axes, p, PALETTE[how.colour][0], how.shape, 7.5, full=True)
        for who, p in models.items():
            _put(axes, p, TARGET, "o" if who == "target" else "D", 10, full=False)
        _write_names(axes, runs, models, marks)

    return draw


def _frame(axes: Any, shown: Sequence[Point], names: tuple[str, str], lower: bool) -> None:
    """Limits around all marks and intervals, the axes' names, and which way is better."""
    ink = COLOURS["ink"][0]
    for ends, limit in (([p.x for p in shown], axes.set_xlim), ([p.y for p in shown], axes.set_ylim)):
        values = [v for end in ends for v in end if v is not None]
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        limit(low - room, high + room)
    axes.set_xlabel(f"{names[0]}, higher is better →", color=ink, loc="right", labelpad=2)
    better = "lower is more forgotten ↓" if lower else "higher is more forgotten ↑"
    axes.text(0, 1.025, f"{names[1]}, {better}", transform=axes.transAxes, color=ink, ha="left", va="bottom")
    corner = f"better {'↘' if lower else '↗'}"
    axes.text(1, 1.025, corner, transform=axes.transAxes, color=TARGET, ha="right", va="bottom", fontweight="bold")


def _put(axes: Any, p: Point, colour: str, shape: str, size: float, *, full: bool) -> None:
    (x, x0, x1), (y, y0, y1) = p.x, p.y
    bars = {"color": colour, "linewidth": 1.2, "alpha": 0.45, "solid_capstyle": "butt", "zorder": 2.5}
    if x0 is not None and x1 is not None:
        axes.plot([x0, x1], [y, y], **bars)
    if y0 is not None and y1 is not None:
        axes.plot([x, x], [y0, y1], **bars)
    face, edge = (colour, COLOURS["page"][0]) if full else ("none", colour)  # a run under a model stays in sight
    width = 0.8 if full else 2
    size += 1.5 if shape in "PX" else 0  # crosses look smaller
    axes.plot(
        [x], [y], shape, markersize=size, markerfacecolor=face, markeredgecolor=edge, markeredgewidth=width, zorder=4
    )


def _write_names(axes: Any, runs: Sequence[Point], models: Mapping[str, Point], marks: Mapping[str, Mark]) -> None:
    """A name beside the mark of each model, and of each method beside the one nearest to the middle of its marks."""
    axes.get_xlim(), axes.get_ylim()  # settles the limits, which matplotlib works out late
    box = axes.get_window_extent()

    def at(x: float, y: float) -> tuple[float, float]:
        return tuple(axes.transData.transform((x, y)))

    wanted = [(p, who, TARGET, "bold") for who, p in models.items()]
    wanted += [(_middle([p for p in runs if p.label == n]), n, PALETTE[m.colour][0], "normal") for n, m in marks.items()
               if any(p.label == n for p in runs)]  # fmt: skip
    texts, asked = [], []
    for p, name, colour, weight in wanted:
        text = axes.text(
            0, 0, name[:32], color=colour, fontweight=weight, fontsize=11, ha="center", va="center", zorder=5
        )
        extent = text.get_window_extent()
        texts.append(text)
        asked.append(Label(at(p.x[0], p.y[0]), extent.width, extent.height))
    everything = [*runs, *models.values()]
    bars = [(at(p.x[1], p.y[0]), at(p.x[2], p.y[0])) for p in everything if p.x[1] is not None and p.x[2] is not None]
    bars += [(at(p.x[0], p.y[1]), at(p.x[0], p.y[2])) for p in everything if p.y[1] is not None and p.y[2] is not None]
    places = place(asked, [at(p.x[0], p.y[0]) for p in everything], bars, (box.x0, box.y0, box.x1, box.y1))
    back = axes.transData.inverted()
    for text, label, (x, y) in zip(texts, asked, places, strict=True):
        text.set_position(back.transform((x, y)))
        if (end := label.leader((x, y))) is not None:
            (a, b), (c, d) = back.transform(label.anchor), back.transform(end)
            axes.plot([a, c], [b, d], color=text.get_color(), linewidth=0.7, alpha=0.7, zorder=3)


def _middle(alike: Sequence[Point]) -> Point:
    """The point nearest to the mean of all."""
    x, y = (sum(v) / len(alike) for v in ([p.x[0] for p in alike], [p.y[0] for p in alike]))
    return min(alike, key=lambda p: math.hypot(p.x[0] - x, p.y[0] - y))


def _words(p: Point) -> str:
    """A mark in words, for who cannot see it."""
    told = []
    for middle, low, high in (p.x, p.y):
        told.append(f"{middle:.3g}" + (f" ({low:.3g} to {high:.3g})" if low is not None and high is not None else ""))
    return f"{p.label}: {' against '.join(reversed(told))}."
