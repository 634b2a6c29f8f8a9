"""Record of a release -> its trajectory: a table of the steps, a figure of what was forgotten against what was kept.

Pure functions from a record to text, as in ``tables``; any part of the record may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from expunge.record import complete
from expunge.record_types import ReleaseInfo, ReleaseStep, RunRecord
from expunge.report.draw.curves import COLOURS, Chart, svg
from expunge.report.format import DASH, count, duration, number, plain
from expunge.report.run_page import Row, Table, Tile

NAMES = {"nll": "loss", "perplexity": "perplexity", "probability": "probability"}
NEAR = (40, 16)  # points across and up: names closer than that would touch


def table(said: Any) -> Table | None:
    """One row a step: the two figures that were watched, the penalty, and the time; None if the run was no release."""
    record = complete(RunRecord, said)
    release = record["release"]
    if release is None or not release["trajectory"]:
        return None
    shown = _watched(release)
    columns = (*(_label(name) for name in shown), "Penalty", "Time")
    return Table(columns, tuple(_row(release, step, shown) for step in release["trajectory"]))


def _row(release: ReleaseInfo, step: ReleaseStep, shown: list[str]) -> Row:
    at, kept = step["step"], release["kept"]
    hint = "the result" if at is not None and at == kept else "outside the budget" if _outside(release, step) else ""
    cells = [_short(_value(step, name)) for name in shown]
    first = at == 0
    more = (DASH if first else _short(step["penalty"]), DASH if first else duration(step["seconds"]))
    return Row(count(at) + (" (target)" if first else ""), (*cells, *more), hint)


def sentences(said: Any) -> list[str]:
    """Which step was kept and why, and what the adapter's lower rank cost."""
    record = complete(RunRecord, said)
    release = record["release"]
    if release is None:
        return []
    kept, reason, cut = release["kept"], release["stopped"], release["svd_error"]
    found = []
    if kept is not None:
        which = f"Step {count(kept)} is the result" if kept else "The target itself is the result"
        found.append(f"{which}: {plain(reason)}." if reason else f"{which}.")
    if cut is not None and (lost := cut["overall"]) is not None and (rank := cut["rank"]) is not None:
        worst = max((v for v in cut["modules"].values() if isinstance(v, int | float)), default=lost)
        found.append(
            f"The adapter was cut to rank {count(rank)}; that lost {100 * lost:.2g} % of the change to the weights "
            f"(Frobenius norm), and {100 * worst:.2g} % in the layer where it lost most. What the result forgot and kept is "
            "measured with the cut adapter."
        )
    return found


def headline(said: Any) -> tuple[str, list[Tile]] | None:
    """What the run did to the two figures that were watched, as a sentence and as tiles; None if they are not known."""
    record = complete(RunRecord, said)
    release = record["release"]
    if release is None:
        return None
    steps = {s["step"]: s for s in release["trajectory"]}
    first, last, shown = steps.get(0), steps.get(release["kept"]), _watched(release)
    moves = [(_label(name), _value(first, name), _value(last, name)) for name in shown]
    if not moves or any(v is None for _, *values in moves for v in values):
        return None
    words = " and ".join(f"{name} went from {_short(a)} to {_short(b)}" for name, a, b in moves)
    return f"{words}.", [Tile(name, f"{_short(a)} → {_short(b)}", "before → after") for name, a, b in moves]


def chart(said: Any) -> Chart | None:
    """The watched utility figure over the forget figure, step after step, with the budget as a line."""
    record = complete(RunRecord, said)
    release = record["release"]
    if release is None or not (x := release["forget_figure"]) or not (y := release["utility_figure"]):
        return None
    found = [(s["step"], _value(s, x), _value(s, y)) for s in release["trajectory"]]
    points = [(at, a, b) for at, a, b in found if at is not None and a is not None and b is not None]
    if len(points) < 2:
        return None
    limit, kept = _limit(release), release["kept"]

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
    better = "below" if release["better"] != "higher" else "above"
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


def _watched(release: ReleaseInfo) -> list[str]:
    """The "part/name" of each watched figure."""
    return [name for name in (release["forget_figure"], release["utility_figure"]) if name]


def _limit(release: ReleaseInfo) -> float | None:
    return release["budget"]["limit"] if release["budget"] else None


def _value(step: ReleaseStep | None, name: str) -> float | None:
    part, _, figure = name.partition("/")
    return number(step["figures"], part, figure) if step else None


def _label(name: str) -> str:
    """A watched figure as people read it.

    >>> _label("forget/nll"), _label("utility/perplexity"), _label("toxic/mean_toxicity")
    ('Forget loss', 'Utility perplexity', 'Toxic mean toxicity')
    """
    part, _, figure = name.partition("/")
    text = f"{part} {NAMES.get(figure, figure)}".replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _outside(release: ReleaseInfo, step: ReleaseStep) -> bool:
    name, limit = release["utility_figure"], _limit(release)
    value = _value(step, name) if name else None
    if limit is None or value is None:
        return False
    return value < limit if release["better"] == "higher" else value > limit


def _short(value: float | None) -> str:
    return DASH if value is None or not math.isfinite(value) else f"{value:.4g}"
