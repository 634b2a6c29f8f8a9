"""Who stays forgotten: of several audits what is left without an attack, and what the worst attack brings back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.files import PathLike, replace_text, replacing_file
from expunge.record import complete
from expunge.record_types import AuditRecord
from expunge.report.draw import tradeoff
from expunge.report.draw.curves import COLOURS, Size, png, svg
from expunge.report.worst import worst

NAME = "stays"
SUFFIXES = (".svg", ".png")
LOW, HIGH = -0.5, 1.25  # shares beyond are drawn at the edge
Share = tuple[float, float | None, float | None]  # value, low, high


@dataclass(frozen=True)
class Line:
    """An audited model: its ``verdict``; of its figures that decide the largest share ``left``, of the attacks on it the one
    that brings most ``back`` (:func:`expunge.report.worst.worst`), and the names of both.
    """

    label: str
    verdict: str
    left: Share | None
    figure: str
    back: Share | None
    attack: str


def line(label: str, raw_record: Mapping[str, Any]) -> Line:
    """The line of one audit's record."""
    record = complete(AuditRecord, raw_record)
    left = [
        (f["value"], f["low"], f["high"], (f["name"] or "").partition("/")[2])
        for f in record["verdict"]["findings"]
        if f["family"] == "remaining" and f["decides"] and f["value"] is not None
    ]
    most, back = max(left, default=None), worst(record)
    return Line(
        label,
        record["verdict"]["word"] or "cannot be told",
        most[:3] if most else None,
        most[3] if most else "",
        back[:3] if back else None,
        back[3] if back else "",
    )


def in_words(lines: Sequence[Line]) -> str:
    """Every mark with its number as text, for screen readers: the title of the picture."""
    return " ".join(["Who stays forgotten.", *map(_words, lines)])


def _words(of: Line) -> str:
    parts = [of.verdict]
    parts += [f"left {of.left[0]:.2f} ({of.figure})"] if of.left else []
    parts += [f"brought back {of.back[0]:.2f} ({of.attack.replace('-', ' ')})"] if of.back else []
    return f"{of.label}: {', '.join(parts)}."


def write(named: Sequence[tuple[str, Mapping[str, Any]]], path: PathLike) -> Path:
    """Write the figure of audits (label, record) to ``path``, an SVG that follows the reader into dark mode, or a PNG.

    Raises InputError for another suffix.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise InputError(f"{target}: a figure is written as {' or '.join(SUFFIXES)}")
    lines = [line(label, said) for label, said in named]
    limits = [complete(AuditRecord, said)["policy"].get("remaining") for _, said in named]
    size = Size(912, 70 + 34 * len(lines), left=130, right=250, top=26)
    draw = _painter(lines, next((x for x in limits if isinstance(x, float)), None))
    if target.suffix == ".png":
        with replacing_file(target) as temporary:
            temporary.write_bytes(png(NAME, draw, size=size))
        return target
    picture = svg(NAME, in_words(lines), draw, size=size)
    head, close, body = picture.partition(">")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif"{head.removeprefix("<svg")}'
    return replace_text(target, f"{head}{close}<style>{tradeoff.css(alone=True)}:root{{{_hues()}}}</style>{body}\n")


def _hues() -> str:
    return ";".join(f"{COLOURS[name][1]}:{COLOURS[name][0]}" for name in ("forget", "retain"))


def _painter(lines: Sequence[Line], limit: float | None) -> Any:
    def draw(axes: Any) -> None:
        ink = COLOURS["ink"][0]
        for row, of in enumerate(lines):
            for share, colour, shape, shift in ((of.left, "retain", "o", -0.14), (of.back, "forget", "s", 0.14)):
                if share is None:
                    continue
                value, low, high = (None if v is None else min(HIGH, max(LOW, v)) for v in share)
                if low is not None and high is not None:
                    axes.plot([low, high], [row + shift] * 2, color=COLOURS[colour][0], linewidth=1.6)
                axes.plot([value], [row + shift], shape, color=COLOURS[colour][0], markersize=6)
            said = f"{of.verdict}; {of.attack.replace('-', ' ')}" if of.attack else of.verdict
            axes.annotate(said, (1.01, row), xycoords=("axes fraction", "data"), color=ink, fontsize=11, va="center")
        if limit is not None:
            axes.axvline(limit, color=ink, linewidth=0.8, dashes=(4, 3), zorder=1.5)
        axes.set(xlim=(LOW - 0.02, HIGH + 0.02), ylim=(len(lines) - 0.5, -0.5))
        axes.set_yticks(range(len(lines)), [of.label for of in lines])
        axes.set_xticks([-0.5, 0, 0.5, 1], ["−50 %", "0", "50 %", "100 %"])
        axes.grid(axis="x", color=COLOURS["grid"][0], linewidth=0.8)
        for x, colour, words in (
            (0.0, "retain", "● most that is left"), (0.3, "forget", "■ most that an attack brings back"),
        ):  # fmt: skip
            axes.annotate(words, (x, 1), xycoords="axes fraction", xytext=(0, 8), textcoords="offset points",
                          color=COLOURS[colour][0], fontsize=11)  # fmt: skip

    return draw
