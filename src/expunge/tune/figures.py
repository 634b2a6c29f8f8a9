"""Figures of the two halves of the rows: a trial is chosen by the first, and reported on the second.

Training sees all rows.  A half is every other block of each part's rows (:mod:`expunge.evaluation.halves`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from expunge.data.example import Row, evenly
from expunge.errors import InputError
from expunge.evaluation import custom
from expunge.evaluation import figures as of_a_set
from expunge.evaluation.benchmark import Figure, mean_figure, to_json
from expunge.evaluation.halves import in_half
from expunge.evaluation.metrics import likelihood
from expunge.evaluation.probe import Probe
from expunge.evaluation.table import Collected

Half: TypeAlias = Literal["first", "second"]
HALVES: tuple[Half, ...] = get_args(Half)
INTERMEDIATE = 32  # rows of each set of the first half that a trial is measured on while it trains


def probes_of(rows: Mapping[str, Sequence[Row]], most: int) -> list[Probe]:
    """The probes of a run's sets, at most ``most`` rows of each: each answer is scored."""
    out = []
    for part in ("forget", "retain"):
        if part in rows:
            out += [replace(p, ask=None) for p in of_a_set.probes(part, evenly(rows[part], most))]
    return out


def halves_of(probes: Sequence[Probe]) -> dict[str, list[Probe]]:
    """The two halves; InputError where a part has no row in one of them."""
    out: dict[str, list[Probe]] = {which: in_half(probes, which) for which in HALVES}
    for which in HALVES:
        for part in {p.part: None for p in probes}:
            if not any(p.part == part for p in out[which]):
                raise InputError(
                    f"the {part} set has a single row: a trial is chosen by one half of the rows and reported on the other; "
                    "give two rows or more"
                )
    return out


def intermediate(first: Sequence[Probe]) -> list[Probe]:
    """A few rows of each part of the first half, evenly spread."""
    parts: dict[str, list[Probe]] = {}
    for p in first:
        parts.setdefault(p.part, []).append(p)
    return [p for of in parts.values() for p in evenly(of, INTERMEDIATE)]


def among(collected: Collected, probes: Iterable[Probe]) -> Collected:
    """What was collected of the rows of ``probes``."""
    rows = {(p.part, p.index) for p in probes}
    return Collected(
        tuple(s for s in collected.scores if (s.part, s.index) in rows),
        tuple(a for a in collected.answers if (a.part, a.index) in rows),
    )


def of_rows(collected: Collected, own: Mapping[str, custom.Metric] | None = None) -> list[dict[str, Any]]:
    """The figures of a run's sets, and of the user's ``own`` metrics, for a record; the probability with its interval."""
    out: list[Figure] = []
    for part in {s.part: None for s in collected.scores}:
        p = np.asarray(likelihood.probability(collected.mean_logp(part)))
        out.append(mean_figure("probability", p, part))
        others = of_a_set.figures(collected, part)
        out += [Figure(k, v, len(p), part=part) for k, v in others.items() if k not in ("n", "probability")]
    return to_json([*out, *custom.figures(own or {}, collected)])
