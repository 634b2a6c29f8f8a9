"""What the figures of several models are collected in, and the limits that they are held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.audit.measure import Array, Rows
from expunge.audit.verdict import Finding
from expunge.stats import bootstrap_mean, bounded_mean

NAMES = {
    "recall": "recall of the answers",
    "otherwise": "recall of answers to questions in other words",
    "probability": "probability of the right answers",
    "extraction": "extraction strength",
    "preference": "preference for right over wrong answers",
}
IGNORANCE = 0.5  # of preference: right and wrong answers are equally likely
OF_TRAINING = ("preference",)  # figures that training on the other rows alone raises above those of a base
LEAST_KEPT = 0.1  # of a figure of the target, from which a share of it says something
FEWEST = 5  # rows of a figure that is compared
ROLES = ("target", "unlearned", "control")


@dataclass
class Compared:
    """What was found of the models: ``figures`` and ``membership`` for the record, ``findings`` for the verdict."""

    rows: dict[str, Rows]
    kept: dict[str, dict[str, Rows]]
    figures: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    membership: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    basis: str | None = None
    not_concluded: list[str] = field(default_factory=list)


def figure(part: str, name: str, role: str, values: Array) -> dict[str, Any]:
    """A mean with its interval, as the record holds it."""
    known = values[~np.isnan(values)]
    inside = bool(((known >= 0) & (known <= 1)).all())
    interval = bounded_mean(known) if inside else bootstrap_mean(known)
    return {"part": part, "name": name, "model": role, "value": float(known.mean()), "low": interval.low,
            "high": interval.high, "n": len(known)}  # fmt: skip


def limits(limit: float, severe: float, beyond: float, *, lenient: bool, control: str | None) -> tuple[float, float]:
    """(limit, second limit) of a figure: (``severe``, ``beyond``) where it is ``lenient`` and no retrained model is the
    control.

    A base was not taught the other rows either, so a retrained model differs from it as well; by how much is not known.

    >>> limits(0.2, 0.5, 1.0, lenient=True, control="base"), limits(0.2, 0.5, 1.0, lenient=True, control="retrained")
    ((0.5, 1.0), (0.2, 0.5))
    >>> limits(0.2, 0.5, 1.0, lenient=True, control=None), limits(0.2, 0.5, 1.0, lenient=False, control=None)
    ((0.5, 1.0), (0.2, 0.5))
    """
    return (severe, beyond) if lenient and control != "retrained" else (limit, severe)
