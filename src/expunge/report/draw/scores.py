"""The scores of a comparison: a line a method, a mark a seed with its interval, the retrained model's score as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.record import complete
from expunge.record_types import CompareRecord
from expunge.report.draw import tradeoff
from expunge.report.draw.curves import COLOURS, Chart, Size, svg

SCORE = "all/score"
NAMES = {"all/score": "Score", "all/memorisation": "Memorisation", "all/privacy": "Privacy", "all/utility": "Utility"}
SEED = 0.5  # of a line's height that the seeds of one method share
Value = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Line:
    """A method with what its grid set: (seed, value) of each of its runs, its mark the trade-off figure's."""

    name: str
    mark: tradeoff.Mark
    values: tuple[tuple[str, Value], ...]

    @property
    def mean(self) -> float:
        """Over its seeds."""
        return sum(value[0] for _, value in self.values) / len(self.values)


def lines(raw_record: Any, figure: str = SCORE) -> list[Line]:
    """The methods that have the figure, the best mean first; of equals the earlier one."""
    record = complete(CompareRecord, raw_record)
    marks = tradeoff.labels(record)
    found: dict[str, list[tuple[str, Value]]] = {}
    of: dict[str, str] = {}
    for run in record["runs"]:
        if (value := tradeoff.value(run, figure)) is not None:
            found.setdefault(str(run["shown"]), []).append((str(run["seed"]), value))
            of[str(run["shown"])] = str(run["label"])
    made = [Line(name, marks[of[name]], tuple(values)) for name, values in found.items()]
    return sorted(made, key=lambda line: -line.mean)


def chart(raw_record: Any) -> Chart | None:
    """The figure, or None where no run has a score."""
    record = complete(CompareRecord, raw_record)
    drawn = lines(record)
    if not drawn:
        return None
    models = {role: v for role in ("retrained", "target") if (m := record[role]) and (v := tradeoff.value(m, SCORE))}
    many = max(len(line.values) for line in drawn)
    height = round(60 + len(drawn) * (24 + 7 * (many - 1)))
    description = in_words(drawn, models)
    picture = svg(
        "scores", description, _painter(drawn, models), size=Size(912, height, left=200, top=26),
        colours=tradeoff.RUN_COLOURS,
    )  # fmt: skip
    return Chart("Scores", picture)


def in_words(drawn: Sequence[Line], models: dict[str, Value]) -> str:
    """Every mark with its numbers, for screen readers."""
    said = [f"{role} {_number(value)}." for role, value in models.items()]
    for line in drawn:
        values = ", ".join(f"seed {seed}: {_number(value)}" for seed, value in line.values)
        said.append(f"{line.name}: mean {line.mean:.3g}; {values}.")
    return " ".join(["Scores, the best mean first.", *said])


def _number(value: Value) -> str:
    middle, low, high = value
    return f"{middle:.3g}" + (f" ({low:.3g} to {high:.3g})" if low is not None and high is not None else "")


def _painter(drawn: Sequence[Line], models: dict[str, Value]) -> Any:
    def draw(axes: Any) -> None:
        ink = COLOURS["ink"][0]
        for role, (value, low, high) in models.items():
            if role == "retrained":
                axes.axvline(value, color=ink, linewidth=1, dashes=(4, 3), zorder=1.5)
                if low is not None and high is not None:
                    axes.axvspan(low, high, color=COLOURS["grid"][0], alpha=0.45, linewidth=0, zorder=1)
            else:
                axes.axvline(value, color=ink, linewidth=0.8, dashes=(1, 3), zorder=1.5)
            axes.text(value, 1.01, role, transform=axes.get_xaxis_transform(), color=ink, ha="center", va="bottom")
        for row, line in enumerate(drawn):
            colour, n = tradeoff.PALETTE[line.mark.colour][0], len(line.values)
            for k, (_, (value, low, high)) in enumerate(line.values):
                y = row + SEED * ((k + 0.5) / n - 0.5)
                if low is not None and high is not None:
                    axes.plot([low, high], [y, y], color=colour, linewidth=1.2, alpha=0.45, solid_capstyle="butt")
                axes.plot([value], [y], line.mark.shape, color=colour, markersize=6, markeredgewidth=0, zorder=4)
            if n > 1:
                axes.plot([line.mean] * 2, [row - 0.38, row + 0.38], color=colour, linewidth=1.6, zorder=3)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(drawn) - 0.5, -0.5))
        axes.set_yticks(range(len(drawn)), [line.name[:32] for line in drawn])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.grid(axis="x", color=COLOURS["grid"][0], linewidth=0.8)
        axes.set_xlabel("score, higher is better →", color=ink, loc="right", labelpad=2)

    return draw
