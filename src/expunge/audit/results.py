"""What was measured of the models of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.attacks.attack import Point
from expunge.audit.material import Material
from expunge.audit.measure import Rows
from expunge.evaluation.table import Collected

Points = Mapping[str, list[Point] | str]  # attack -> its points, or why there are none


@dataclass(frozen=True)
class ModelResults:
    """What was measured of one model: its ``table``, ``facts`` for the record, and ``points`` of the attacks on it."""

    table: Collected
    facts: dict[str, Any]
    points: Points = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """What was measured of all: ``models`` by role; ``fluency``: role -> part -> rows; ``material``: the rows with what was
    written for them; ``rewritten``: what is said of that.
    """

    models: dict[str, ModelResults]
    fluency: dict[str, dict[str, Rows]]
    material: Material
    rewritten: dict[str, Any]

    @property
    def tables(self) -> dict[str, Collected]:
        """The table of each model, by role."""
        return {role: one.table for role, one in self.models.items()}
