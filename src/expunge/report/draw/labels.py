"""Placement of labels beside marks so that they overlap neither each other nor a mark: greedy, on rings around each mark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Spot = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top
RINGS = (10.0, 16.0, 24.0, 34.0, 46.0, 60.0, 78.0, 98.0)  # distances from a mark to its name, in points
ANGLES = [
    math.pi * k / 8 for k in (0, 8, 4, 12, 2, 14, 6, 10, 1, 15, 7, 9, 3, 13, 5, 11)
]  # right, left, above, below, …
MARK = 6.0  # half the width of a mark
NEAR = 18.0  # from there on a line leads from the mark to its name


@dataclass(frozen=True)
class Label:
    """A name ``width`` by ``height`` that belongs to a mark at ``anchor``."""

    anchor: Spot
    width: float
    height: float

    def box(self, middle: Spot, room: float = 0.0) -> Box:
        """The box it covers when centred at ``middle``, with a margin of ``room``."""
        half = self.width / 2 + room, self.height / 2 + room
        return middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]

    def beside(self, ring: float, angle: float) -> Spot:
        """The middle of the name whose nearest point is ``ring`` away from the mark in that direction."""
        dx, dy = math.cos(angle), math.sin(angle)
        x, y = self.anchor[0] + ring * dx, self.anchor[1] + ring * dy
        return x + dx * self.width / 2, y + dy * self.height / 2

    def leader(self, middle: Spot) -> Spot | None:
        """The end of a line from the mark to the name; None if the name is so near that none is needed."""
        left, low, right, high = self.box(middle)
        end = min(max(self.anchor[0], left), right), min(max(self.anchor[1], low), high)
        return end if math.dist(end, self.anchor) > NEAR else None


def place(labels: Sequence[Label], marks: Sequence[Spot], bars: Sequence[tuple[Spot, Spot]], inside: Box) -> list[Spot]:
    """The middle of each name, in the order given: the earlier ones choose first.

    ``marks``: all marks; ``bars``: vertical and horizontal lines that a name should not cross; ``inside``: the allowed area.

    >>> one = Label((50, 50), 20, 10)
    >>> place([one], [(50, 50)], [], (0, 0, 100, 100))
    [(70.0, 50.0)]
    >>> place([one], [(50, 50)], [], (0, 0, 75, 100))  # no room on the right
    [(30.0, 50.0)]
    """
    around_marks = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in marks]
    around_bars = [_padded(a, b) for a, b in bars]
    occupied: list[Box] = []
    out = []
    for label in labels:
        position = _cheapest(label, occupied, around_marks, around_bars, inside)
        occupied.append(label.box(position, 1.0))
        out.append((round(position[0], 6), round(position[1], 6)))
    return out


def _cheapest(label: Label, occupied: Sequence[Box], marks: Sequence[Box], bars: Sequence[Box], inside: Box) -> Spot:
    """The middle of a name whose overlap and distance from its mark cost least: the first of several, ring by ring."""
    best, least = label.anchor, math.inf
    for ring in RINGS:
        if least <= 0.5 * ring:  # no spot further away can cost less
            break
        for angle in ANGLES:
            middle = label.beside(ring, angle)
            if (cost := _cost(label, middle, occupied, marks, bars, inside) + 0.5 * ring) < least:
                best, least = middle, cost
    return best


def _cost(
    label: Label, middle: Spot, occupied: Sequence[Box], marks: Sequence[Box], bars: Sequence[Box], inside: Box
) -> float:
    """The weighted overlap of a name at ``middle``, in square points."""
    box = label.box(middle, 1.0)
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, inside)
    on_names, on_marks, on_bars = (sum(_shared(box, other) for other in some) for some in (occupied, marks, bars))
    return 20 * outside + 10 * on_names + 6 * on_marks + 0.5 * on_bars


def _padded(a: Spot, b: Spot) -> Box:
    return min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1


def _shared(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
