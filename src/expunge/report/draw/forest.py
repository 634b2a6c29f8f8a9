"""A forest plot: one line a figure, a mark a model, its interval as whiskers; SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.report.draw.curves import COLOURS, Chart, Size, svg

# Model -> a key of COLOURS, and how its mark looks; base.html.j2 draws the same ones beside the names.
MARKS = {"target": "ink", "model": "forget", "retrained": "retain"}
SHAPES = {"target": "o", "model": "o", "retrained": "D"}
STEP, APART = 40, 0.24  # points a line; distance of two models on it, in lines


@dataclass(frozen=True)
class Line:
    """One figure: its name, and (value, low, high) of each model; None where there is none."""

    name: str
    ends: Mapping[str, tuple[float | None, ...]]

    @property
    def drawn(self) -> bool:
        """Whether it fits an axis from 0 to 1: it has an interval, and all its numbers are in that range."""
        values = [v for ends in self.ends.values() for v in ends if v is not None]
        has_interval = any(None not in ends for ends in self.ends.values())
        return has_interval and all(-1e-9 <= v <= 1 + 1e-9 for v in values)


def forest(name: str, heading: str, lines: Sequence[Line], models: Mapping[str, str]) -> Chart | None:
    """The chart of the lines that can be drawn, or None if there are none."""
    drawn = [line for line in lines if line.drawn]
    if not drawn:
        return None
    offsets = {role: (row - (len(models) - 1) / 2) * APART for row, role in enumerate(models)}

    def draw(axes: Any) -> None:
        for row, line in enumerate(drawn):
            for role, (value, low, high) in line.ends.items():
                if value is None:
                    continue
                colour, y = COLOURS[MARKS[role]][0], row + offsets[role]
                if low is not None and high is not None:
                    axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
                face = COLOURS["page"][0] if role == "target" else colour
                size = 5.5 if SHAPES[role] == "D" else 6.5
                style = {"color": colour, "markersize": size, "markeredgewidth": 1.4, "markerfacecolor": face}
                axes.plot([value], [y], SHAPES[role], **style)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(drawn) - 0.5, -0.5))
        axes.set_yticks(range(len(drawn)), [line.name for line in drawn])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.grid(axis="x", color=COLOURS["grid"][0], linewidth=0.8)

    description = " ".join(_words(line, models) for line in drawn)
    step = STEP if len(models) > 1 else STEP * 0.7
    height = round(44 + step * len(drawn))
    picture = svg(f"forest-{name}", f"{heading}. {description}", draw, size=Size(912, height, left=200))
    missing = "Figures without an interval between 0 and 1 are in the table only."
    return Chart(heading, picture, "" if len(drawn) == len(lines) else missing)


def _words(line: Line, models: Mapping[str, str]) -> str:
    """A line as text, for screen readers."""
    values = []
    for role, name in models.items():
        value, low, high = line.ends.get(role, (None, None, None))
        if value is not None:
            values.append(f"{name} {value:.3g}" + (f" ({low:.3g} to {high:.3g})" if None not in (low, high) else ""))
    return f"{line.name}: {', '.join(values)}."
