"""Record -> charts, as SVG text that takes its colours and its font from the page around it.

Drawn with matplotlib (imported inside functions, no pyplot, so nothing global is left behind), then cleaned:
the colours become CSS variables, so a chart follows the page into dark mode; identifiers get the chart's name
in front, so several charts live on one page; metadata goes, so the same record gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from expunge.record import complete
from expunge.record_types import RunRecord
from expunge.report.format import number, probability


class Size(NamedTuple):
    """Of a drawing, in points, and of what is left free around its axes; a page shows it at about one pixel a point."""

    width: int = 448
    height: int = 208
    left: int = 46
    right: int = 8
    top: int = 10


SMALL = Size()
# What a line means -> (the colour matplotlib draws, the CSS variable that replaces it).  Okabe–Ito hues.
COLOURS = {
    "forget": ("#d55e01", "--forget"),
    "retain": ("#0072b1", "--retain"),
    "other": ("#cc79a6", "--other"),
    "ink": ("#51515b", "--muted"),
    "grid": ("#dedee1", "--line"),
    "page": ("#fefdfe", "--page"),
}


@dataclass(frozen=True)
class Chart:
    """One figure of the page: its heading, the SVG, and a note under it (gaps, how to read it)."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Series:
    """One line: ``y`` is NaN where a step has no finite value; ``colour`` is a key of COLOURS."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "ink"


def charts(raw_record: Any) -> list[Chart]:
    """The curves of a run, in the order of the page; only those the steps have values for."""
    record = complete(RunRecord, raw_record)
    steps = record["steps"]
    drawn: list[Chart] = []
    for line in series(steps, "loss/"):
        drawn.append(_chart(f"loss-{len(drawn)}", f"{line.name.capitalize()} loss", [line]))
    multiplier = series(steps, "multiplier")
    if multiplier:
        note = "The weight of the constrained objective; it grows while the budget is exceeded."
        drawn.append(_chart("multiplier", "Multiplier λ", multiplier, note))
    moving = {line.y for line in multiplier}
    weights = [line for line in series(steps, "weight/") if line.y not in moving]
    if any(_varies(line.y) for line in weights):
        drawn.append(_chart("weights", "Weights of the objectives", weights))
    cosine = series(steps, "cosine")
    if cosine:
        note = "Below zero the two gradients pull against each other."
        drawn.append(_chart("cosine", "Cosine of the forget and retain gradients", cosine, note, unit=True))
    norms = series(steps, "norm/", positive=True)
    if norms:
        drawn.append(_chart("norms", "Gradient norms (log scale)", norms, log=True))
    return drawn


def series(steps: list[Any], key: str, *, positive: bool = False) -> list[Series]:
    """The lines under a key (``cosine``) or under every key that starts with it (``loss/``); none without a
    value.

    A step without the key is left out of its line; a key with null, NaN or (if ``positive``) a value not
    above zero is a gap.  The x axis is the step's number, or its position in the list.
    """
    names = dict.fromkeys(
        k for step in steps for k in step if k == key or (key.endswith("/") and str(k).startswith(key))
    )
    lines = []
    for name in names:
        values = [
            (_step_number(step, position), number(step, name)) for position, step in enumerate(steps, 1) if name in step
        ]
        y = tuple(math.nan if v is None or (positive and v <= 0) else float(v) for _, v in values)
        label = str(name).removeprefix(key) or key
        if any(math.isfinite(v) for v in y):
            colour = label if label in COLOURS else "other" if key.endswith("/") else "ink"
            lines.append(Series(label, tuple(float(x) for x, _ in values), y, colour))
    return lines


def _step_number(step: Any, position: int) -> float:
    recorded = number(step, "step")
    return position if recorded is None else recorded


def movement(raw_record: Any) -> Chart | None:
    """Probability of the expected answers: before (hollow) → after (full), the reference as a line."""
    record = complete(RunRecord, raw_record)
    probabilities = {
        name: [
            number(figures, name, "probability") for figures in (record["before"], record["after"], record["reference"])
        ]
        for name in ("forget", "retain")
    }
    if not any(before is not None and after is not None for before, after, _ in probabilities.values()):
        return None

    def draw(axes: Any) -> None:
        for row, (name, (before, after, reference)) in enumerate(probabilities.items()):
            colour = COLOURS[name][0]
            if reference is not None:
                axes.plot([reference] * 2, [row - 0.26, row + 0.26], color=COLOURS["ink"][0], linewidth=1.6)
            if before is not None and after is not None:
                axes.plot([before, after], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
            if before is not None:
                axes.plot(
                    [before],
                    [row],
                    "o",
                    color=colour,
                    markersize=8,
                    markeredgewidth=1.6,
                    markerfacecolor=COLOURS["page"][0],
                )
            if after is not None:
                axes.plot([after], [row], "o", color=colour, markersize=8.8, markeredgewidth=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(1.5, -0.5), yticks=[0, 1], yticklabels=["Forget", "Retain"])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.grid(axis="x", color=COLOURS["grid"][0], linewidth=0.8)
        for label, name in zip(axes.get_yticklabels(), probabilities, strict=True):
            label.set_color(COLOURS[name][0])
            label.set_fontsize(13)

    description = "; ".join(
        f"{name}: {probability(before)} before, {probability(after)} after"
        + (f", {probability(reference)} for the reference" if reference is not None else "")
        for name, (before, after, reference) in probabilities.items()
    )
    heading = "Probability of the expected answers"
    return Chart(heading, svg("movement", f"{heading}. {description}.", draw, size=Size(580, 112)))


# -- drawing -------------------------------------------------------------------------------------------------
def _chart(
    name: str, heading: str, lines: list[Series], note: str = "", *, log: bool = False, unit: bool = False
) -> Chart:
    """A line chart over steps: direct labels, a light grid, and a dot where a point has no neighbour."""

    def draw(axes: Any) -> None:
        if log:
            axes.set_yscale("log")
        if unit:
            axes.set_ylim(-1.05, 1.05)
            axes.set_yticks([-1, -0.5, 0, 0.5, 1])
            axes.axhline(0, color=COLOURS["ink"][0], linewidth=0.8)
        for line in lines:
            colour = COLOURS[line.colour][0]
            axes.plot(line.x, line.y, color=colour, linewidth=1.5, solid_joinstyle="round")
            alone = [i for i in range(len(line.y)) if _is_isolated(line.y, i)]
            axes.plot([line.x[i] for i in alone], [line.y[i] for i in alone], "o", color=colour, markersize=4)
        _ticks(axes, log=log, unit=unit)
        if len(lines) > 1:
            _labels(axes, lines)

    description = " ".join(_words(line) for line in lines)
    missing = sum(not math.isfinite(v) for line in lines for v in line.y)
    if missing:
        gap = "Gap: 1 value is not finite." if missing == 1 else f"Gaps: {missing} values are not finite."
        note = f"{note} {gap}".strip()
    return Chart(
        heading, svg(name, f"{heading}. {description}", draw, size=Size(right=60 if len(lines) > 1 else 8)), note
    )


def _ticks(axes: Any, *, log: bool, unit: bool) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02, y=0.1)
    if log:
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,), numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    elif not unit:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.grid(axis="y", which="major", color=COLOURS["grid"][0], linewidth=0.8)
    axes.set_xlabel("step", color=COLOURS["ink"][0], loc="right", labelpad=2)


def _labels(axes: Any, lines: list[Series]) -> None:
    """Each line's name at its last value, moved apart where two would touch; sorted from the bottom up."""
    axes.get_xlim(), axes.get_ylim()  # settles the limits, which matplotlib works out late
    to_axes = axes.transData + axes.transAxes.inverted()
    last_heights = []
    for line in lines:
        x, y = next((x, y) for x, y in zip(reversed(line.x), reversed(line.y), strict=True) if math.isfinite(y))
        last_heights.append((float(to_axes.transform((x, y))[1]), line))
    previous = -math.inf
    for height, line in sorted(last_heights, key=lambda end: end[0]):
        previous = max(height, previous + 0.1)
        axes.text(1.01, previous, line.name[:24], transform=axes.transAxes, color=COLOURS[line.colour][0],
                  fontsize=11, va="center", ha="left")  # fmt: skip


def _words(line: Series) -> str:
    """A line as text, for screen readers."""
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    values = [y for _, y in points]
    (first, start), (last, end) = points[0], points[-1]
    return (
        f"{line.name}: {start:.3g} at step {first:g}, {end:.3g} at step {last:g}, "
        f"lowest {min(values):.3g}, highest {max(values):.3g}."
    )


def _varies(values: tuple[float, ...]) -> bool:
    finite = [v for v in values if math.isfinite(v)]
    return bool(finite) and max(finite) - min(finite) > 1e-9 * max(1.0, abs(max(finite)))


def _is_isolated(y: tuple[float, ...], i: int) -> bool:
    """Whether a point has no neighbour that a line could reach."""
    neighbours = [y[k] for k in (i - 1, i + 1) if 0 <= k < len(y)]
    return math.isfinite(y[i]) and not any(math.isfinite(v) for v in neighbours)


# -- SVG -----------------------------------------------------------------------------------------------------
@contextmanager
def _style(name: str) -> Iterator[None]:
    import matplotlib

    ink, grid = COLOURS["ink"][0], COLOURS["grid"][0]
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none", "svg.hashsalt": f"expunge-{name}",
            "text.parse_math": False, "text.usetex": False,
            "font.family": ["DejaVu Sans"], "font.size": 11, "axes.unicode_minus": True,
            "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": grid, "axes.labelcolor": ink,
            "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
            "xtick.major.size": 3, "ytick.major.size": 0, "ytick.minor.size": 0, "axes.axisbelow": True,
        }
    ):  # fmt: skip
        yield


def svg(
    name: str,
    words: str,
    draw: Callable[[Any], None],
    *,
    size: Size = SMALL,
    colours: Mapping[str, tuple[str, str]] = COLOURS,
) -> str:
    """Draw on one pair of axes and return the SVG element, to be embedded in HTML; ``colours`` become CSS variables."""
    with _style(name):
        figure = _drawn(draw, size)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _clean(out.getvalue(), name, words, colours)


def png(
    name: str,
    draw: Callable[[Any], None],
    *,
    size: Size = SMALL,
    scale: float = 2.0,
) -> bytes:
    """The same drawing as a picture on a light page, ``scale`` pixels a point."""
    with _style(name):
        figure = _drawn(draw, size)
        figure.patch.set_facecolor(COLOURS["page"][0])
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=72 * scale, metadata={"Software": None})
    return out.getvalue()


def pdf(
    name: str,
    draw: Callable[[Any], None],
    *,
    size: Size = SMALL,
) -> bytes:
    """The same drawing for print: vectors, with the fonts in it as TrueType, which journals take."""
    import matplotlib

    with _style(name), matplotlib.rc_context({"pdf.fonttype": 42}):
        out = io.BytesIO()
        dates = {
            "CreationDate": None,
            "Creator": None,
            "Producer": None,
        }  # so that the same record gives the same bytes
        _drawn(draw, size).savefig(out, format="pdf", metadata=dates)
    return out.getvalue()


def _drawn(draw: Callable[[Any], None], size: Size) -> Any:
    """The figure with one pair of axes."""
    from matplotlib.figure import Figure

    width, height, left, right, top = size
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes((left / width, 34 / height, (width - left - right) / width, (height - 34 - top) / height))
    axes.patch.set_alpha(0)
    draw(axes)
    return figure


def _clean(svg: str, name: str, words: str, colours: Mapping[str, tuple[str, str]]) -> str:
    """matplotlib's file -> an element: no prolog, metadata or size; own ids; CSS colours; a title."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg class="chart" role="img" aria-labelledby="{name}-title" {box[0] if box else ""}>'
    body = svg[svg.index(">") + 1 :].replace("xlink:href", "href")
    body = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    for colour, variable in colours.values():
        body = body.replace(colour, f"var({variable})")
    return f'{head}<title id="{name}-title">{escape(words)}</title>{body.strip()}'
