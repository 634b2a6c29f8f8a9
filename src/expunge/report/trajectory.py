"""Record of a release -> its trajectory: a table of the steps, a figure of what was forgotten against what was kept.

Pure functions from a record to text, as in ``tables``; any part of the record may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from expunge.report.draw.curves import COLOURS, Chart, svg
from expunge.report.format import DASH, count, duration, look, mappings, number, plain
from expunge.report.run_page import Row, Table, Tile

NAMES = {"nll": "loss", "perplexity": "perplexity", "probability": "probability"}
NEAR = (40, 16)  # points across and up: names closer than that would touch


def table(record: Any) -> Table | None:
    """One row a step: the two figures that were watched, the penalty, and the time; None if the run was no release."""
    steps = mappings(look(record, "release"), "trajectory")
    if not steps:
        return None
    shown = [name for name in (_figure(record, "forget"), _figure(record, "utility")) if name]
    columns = (*(_label(name) for name in shown), "Penalty", "Time")
    return Table(columns, tuple(_row(record, step, shown) for step in steps))


def _row(record: Any, step: Mapping[str, Any], shown: list[str]) -> Row:
    at, kept = number(step, "step"), number(look(record, "release"), "kept")
    hint = "the result" if at is not None and at == kept else "outside the budget" if _outside(record, step) else ""
    cells = [_short(_value(step, name)) for name in shown]
    first = at == 0
    more = (DASH if first else _short(number(step, "penalty")), DASH if first else duration(number(step, "seconds")))
    return Row(count(at) + (" (target)" if first else ""), (*cells, *more), hint)


def sentences(record: Any) -> list[str]:
    """Which step was kept and why, and what the adapter's lower rank cost."""
    release = look(record, "release")
    kept, reason = number(release, "kept"), look(release, "stopped")
    said = []
    if kept is not None:
        which = f"Step {count(kept)} is the result" if kept else "The target itself is the result"
        said.append(f"{which}: {plain(reason)}." if reason else f"{which}.")
    lost, rank = number(release, "svd_error", "overall"), number(release, "svd_error", "rank")
    if lost is not None and rank is not None:
        each = look(release, "svd_error", "modules")
        worst = max((v for v in each.values() if isinstance(v, int | float)), default=lost) if _filled(each) else lost
        said.append(
            f"The adapter was cut to rank {count(rank)}; that lost {100 * lost:.2g} % of the change to the weights "
            f"(Frobenius norm), and {100 * worst:.2g} % in the layer where it lost most. What the result forgot and kept is "
            "measured with the cut adapter."
        )
    return said


def headline(record: Any) -> tuple[str, list[Tile]] | None:
    """What the run did to the two figures that were watched, as a sentence and as tiles; None if they are not known."""
    steps = {number(s, "step"): s for s in mappings(look(record, "release"), "trajectory")}
    first, last = steps.get(0), steps.get(number(look(record, "release"), "kept"))
    shown = [name for name in (_figure(record, "forget"), _figure(record, "utility")) if name]
    moves = [(_label(name), _value(first, name), _value(last, name)) for name in shown]
    if not moves or any(v is None for _, *values in moves for v in values):
        return None
    said = " and ".join(f"{name} went from {_short(a)} to {_short(b)}" for name, a, b in moves)
    return f"{said}.", [Tile(name, f"{_short(a)} → {_short(b)}", "before → after") for name, a, b in moves]


def chart(record: Any) -> Chart | None:
    """The watched utility figure over the forget figure, step after step, with the budget as a line."""
    x, y = _figure(record, "forget"), _figure(record, "utility")
    steps = mappings(look(record, "release"), "trajectory")
    found = [(number(s, "step"), _value(s, x), _value(s, y)) for s in steps] if x and y else []
    points = [(at, a, b) for at, a, b in found if at is not None and a is not None and b is not None]
    if x is None or y is None or len(points) < 2:
        return None
    limit, kept = number(look(record, "release"), "budget", "limit"), number(look(record, "release"), "kept")

    def draw(axes: Any) -> None:
        ink, line = COLOURS["ink"][0], COLOURS["forget"][0]
        axes.plot([a for _, a, _ in points], [b for _, _, b in points], color=line, linewidth=1.5, zorder=2)
        for at, a, b in points:
            chosen = at == kept
            face = line if chosen else COLOURS["page"][0]
            size = 9.5 if chosen else 6.5
            axes.plot([a], [b], "o", color=line, markersize=size, markeredgewidth=1.5, markerfacecolor=face, zorder=3)
        axes.margins(x=0.08, y=0.16)
        if limit is not None:
            axes.axhline(limit, color=ink, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
            axes.text(0.01, limit, "budget", transform=axes.get_yaxis_transform(), color=ink, ha="left", va="bottom")
        for name, a, b in _named(axes, points, kept):
            axes.annotate(name, (a, b), xytext=(0, -8), textcoords="offset points", color=ink, ha="center", va="top")
        _axes(axes, _label(x), _label(y))

    words = "; ".join(
        f"step {at:g}{' (kept)' if at == kept else ''}: {_label(x)} {a:.3g}, {_label(y)} {b:.3g}" for at, a, b in points
    )
    heading = f"{_label(y)} against {_label(x).lower()}, step by step"
    budget = "" if limit is None else f" The budget ends at {limit:.3g}."
    picture = svg("trajectory", f"{heading}. {words}.{budget}", draw, width=580, height=264, left=58)
    better = "below" if look(record, "release", "better") != "higher" else "above"
    note = "Full dot: the step that was kept." + ("" if limit is None else f" Inside the budget is {better} the line.")
    return Chart(heading, picture, note)


def _named(
    axes: Any, points: list[tuple[float, float, float]], kept: float | None
) -> Iterator[tuple[str, float, float]]:
    """The names of the points, without those that would stand over another: the kept step, the target, then the last."""
    axes.get_xlim(), axes.get_ylim()  # settles the limits, which matplotlib works out late
    taken: list[tuple[float, float]] = []
    for at, a, b in sorted(points, key=lambda p: (p[0] != kept, p[0] != 0, -p[0])):
        x, y = axes.transData.transform((a, b))
        if all(abs(x - u) > NEAR[0] or abs(y - v) > NEAR[1] for u, v in taken):
            taken.append((x, y))
            words = [f"{at:g}"] if at else ["target"]
            yield ", ".join([*words, *(["kept"] if at == kept else [])]), a, b


def _axes(axes: Any, x: str, y: str) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.grid(color=COLOURS["grid"][0], linewidth=0.8)
    axes.set_xlabel(x, color=COLOURS["ink"][0], loc="right", labelpad=2)
    axes.text(0, 1.0, y, transform=axes.transAxes, color=COLOURS["ink"][0], ha="left", va="top")


def _figure(record: Any, which: str) -> str | None:
    """The "part/name" of a watched figure."""
    found = look(record, "release", f"{which}_figure")
    return str(found) if found else None


def _value(step: Any, name: str) -> float | None:
    part, _, figure = name.partition("/")
    return number(step, "figures", part, figure)


def _label(name: str) -> str:
    """A watched figure as people read it.

    >>> _label("forget/nll"), _label("utility/perplexity"), _label("toxic/mean_toxicity")
    ('Forget loss', 'Utility perplexity', 'Toxic mean toxicity')
    """
    part, _, figure = name.partition("/")
    text = f"{part} {NAMES.get(figure, figure)}".replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _outside(record: Any, step: Any) -> bool:
    name, limit = _figure(record, "utility"), number(look(record, "release"), "budget", "limit")
    value = _value(step, name) if name else None
    if limit is None or value is None:
        return False
    return value < limit if look(record, "release", "better") == "higher" else value > limit


def _short(value: float | None) -> str:
    return DASH if value is None or not math.isfinite(value) else f"{value:.4g}"


def _filled(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)
