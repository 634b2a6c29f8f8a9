"""Record of a release -> its trajectory: a table of the steps, a chart of the utility figure against the forget figure.

Pure functions from a record to text, as in ``tables``; any part of the record may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from expunge.record import complete
from expunge.record_types import ReleaseInfo, ReleaseStep, RunRecord
from expunge.report.draw.curves import COLOURS, Chart, Size, svg
from expunge.report.format import DASH, count, duration, number, plain
from expunge.report.run_page import Row, Table, Tile

NAMES = {"nll": "loss", "perplexity": "perplexity", "probability": "probability"}
NEAR = (40, 16)  # points across and up: names closer than that would touch


def table(raw_record: Any) -> Table | None:
    """One row a step: the two figures that were watched, the penalty, and the time; None if the run was no release."""
    record = complete(RunRecord, raw_record)
    release = record["release"]
    if release is None or not release["trajectory"]:
        return None
    figure_names = _watched(release)
    columns = (*(_label(name) for name in figure_names), "Penalty", "Time")
    return Table(columns, tuple(_row(release, step, figure_names) for step in release["trajectory"]))


def _row(release: ReleaseInfo, step: ReleaseStep, figure_names: list[str]) -> Row:
    step_number, kept_step = step["step"], release["kept"]
    hint = (
        "the result"
        if step_number is not None and step_number == kept_step
        else "outside the budget"
        if _outside(release, step)
        else ""
    )
    cells = [_short(_value(step, name)) for name in figure_names]
    is_target = step_number == 0
    costs = (DASH if is_target else _short(step["penalty"]), DASH if is_target else duration(step["seconds"]))
    return Row(count(step_number) + (" (target)" if is_target else ""), (*cells, *costs), hint)


def sentences(raw_record: Any) -> list[str]:
    """Which step was kept and why, and what the adapter's lower rank cost."""
    record = complete(RunRecord, raw_record)
    release = record["release"]
    if release is None:
        return []
    kept_step, reason, cut = release["kept"], release["stopped"], release["svd_error"]
    messages = []
    if kept_step is not None:
        which = f"Step {count(kept_step)} is the result" if kept_step else "The target itself is the result"
        messages.append(f"{which}: {plain(reason)}." if reason else f"{which}.")
    if cut is not None and (lost := cut["overall"]) is not None and (rank := cut["rank"]) is not None:
        worst = max((v for v in cut["modules"].values() if isinstance(v, int | float)), default=lost)
        messages.append(
            f"The adapter was cut to rank {count(rank)}; that lost {100 * lost:.2g} % of the change to the weights "
            f"(Frobenius norm), and {100 * worst:.2g} % in the layer where it lost most. What the result forgot and kept is "
            "measured with the cut adapter."
        )
    return messages


def headline(raw_record: Any) -> tuple[str, list[Tile]] | None:
    """How the two watched figures changed, as a sentence and as tiles; None if they are missing."""
    record = complete(RunRecord, raw_record)
    release = record["release"]
    if release is None:
        return None
    steps = {s["step"]: s for s in release["trajectory"]}
    before, after, figure_names = steps.get(0), steps.get(release["kept"]), _watched(release)
    moves = [(_label(name), _value(before, name), _value(after, name)) for name in figure_names]
    if not moves or any(v is None for _, *values in moves for v in values):
        return None
    sentence = " and ".join(f"{name} went from {_short(a)} to {_short(b)}" for name, a, b in moves)
    return f"{sentence}.", [Tile(name, f"{_short(a)} → {_short(b)}", "before → after") for name, a, b in moves]


def chart(raw_record: Any) -> Chart | None:
    """The watched utility figure over the forget figure, step after step, with the budget as a line."""
    record = complete(RunRecord, raw_record)
    release = record["release"]
    if release is None or not (x := release["forget_figure"]) or not (y := release["utility_figure"]):
        return None
    values = [(s["step"], _value(s, x), _value(s, y)) for s in release["trajectory"]]
    points = [(step, a, b) for step, a, b in values if step is not None and a is not None and b is not None]
    if len(points) < 2:
        return None
    limit, kept_step = _limit(release), release["kept"]

    def draw(axes: Any) -> None:
        ink, line = COLOURS["ink"][0], COLOURS["forget"][0]
        axes.plot([a for _, a, _ in points], [b for _, _, b in points], color=line, linewidth=1.5, zorder=2)
        for step, a, b in points:
            is_kept = step == kept_step
            face = line if is_kept else COLOURS["page"][0]
            size = 9.5 if is_kept else 6.5
            axes.plot([a], [b], "o", color=line, markersize=size, markeredgewidth=1.5, markerfacecolor=face, zorder=3)
        axes.margins(x=0.08, y=0.16)
        if limit is not None:
            axes.axhline(limit, color=ink, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
            axes.text(0.01, limit, "budget", transform=axes.get_yaxis_transform(), color=ink, ha="left", va="bottom")
        for name, a, b in _point_names(axes, points, kept_step):
            axes.annotate(name, (a, b), xytext=(0, -8), textcoords="offset points", color=ink, ha="center", va="top")
        _axes(axes, _label(x), _label(y))

    description = "; ".join(
        f"step {step:g}{' (kept)' if step == kept_step else ''}: {_label(x)} {a:.3g}, {_label(y)} {b:.3g}"
        for step, a, b in points
    )
    heading = f"{_label(y)} against {_label(x).lower()}, step by step"
    budget = "" if limit is None else f" The budget ends at {limit:.3g}."
    picture = svg("trajectory", f"{heading}. {description}.{budget}", draw, size=Size(580, 264, left=58))
    better = "below" if release["better"] != "higher" else "above"
    note = "Full dot: the step that was kept." + ("" if limit is None else f" Inside the budget is {better} the line.")
    return Chart(heading, picture, note)


def _point_names(
    axes: Any, points: list[tuple[float, float, float]], kept_step: float | None
) -> Iterator[tuple[str, float, float]]:
    """The labels of the points, in order of priority (kept step, target, last), without those that would overlap another."""
    axes.get_xlim(), axes.get_ylim()  # settles the limits, which matplotlib works out late
    placed: list[tuple[float, float]] = []
    for step, a, b in sorted(points, key=lambda p: (p[0] != kept_step, p[0] != 0, -p[0])):
        x, y = axes.transData.transform((a, b))
        if all(abs(x - u) > NEAR[0] or abs(y - v) > NEAR[1] for u, v in placed):
            placed.append((x, y))
            words = [f"{step:g}"] if step else ["target"]
            yield ", ".join([*words, *(["kept"] if step == kept_step else [])]), a, b


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
    """The display name of a watched figure.

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
