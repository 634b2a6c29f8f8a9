r"""What a trial is worth: one number in [0, 1] from a trial's record, higher is better.

Unless the user names another, the harmonic mean of two shares, each of one figure of the record:

.. math::
    F = \begin{cases} \frac{x_0 - x}{x_0 - x^*} & x \ge x^* \\[2pt] \frac{x}{x^*} & x < x^* \end{cases}
    \qquad K = \min\Bigl(1, \frac{u}{u_0}\Bigr) \qquad \mathrm{score} = \frac{2FK}{F + K}

with the forget figure x and the utility u of the trial, x₀ and u₀ of the target model (before unlearning) and x* of the
reference model, which never saw the forget rows.  F is clipped to [0, 1]: 1 at the reference model's level, 0 where the
forget set is as well known as before, and 0 again at x = 0, for forgetting too much betrays the rows, too.
Without a reference model x* = 0; without a utility figure the score is F.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from expunge import plugins
from expunge.errors import InputError, nearest

Figures: TypeAlias = Sequence[Mapping[str, Any]]  # as ``figures`` of figures.json
Record: TypeAlias = Mapping[str, Any]  # figures, target, reference: what :func:`record_of` gives
Objective: TypeAlias = Callable[[Record], float]


@dataclass(frozen=True)
class Axes:
    """The two figures, as ``part/name``; ``better``: in which direction ``forget`` is forgotten."""

    forget: str
    utility: str | None
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True)
class Score:
    """``value`` of the objective, and the shares F and K, None where a figure is missing."""

    value: float | None
    forgotten: float | None
    retained: float | None


def record_of(figures: Figures, target: Figures, reference: Figures | None) -> dict[str, Any]:
    """What an objective reads: a trial's figures beside those of target and reference model, on the same rows."""
    return {
        "figures": list(figures),
        "target": list(target),
        "reference": None if reference is None else list(reference),
    }


def value_of(figures: Figures | None, figure: str | None) -> float | None:
    """The value of ``part/name``; None where it is missing or not finite."""
    part, _, name = (figure or "").partition("/")
    value = next((f["value"] for f in figures or () if (f["part"], f["name"]) == (part, name)), None)
    return value if value is not None and math.isfinite(value) else None


def forgotten(value: float, target: float, level: float | None, better: str = "lower") -> float:
    """F of the module's formula; ``level`` None: without a reference model.

    A figure that rises as rows are forgotten (``better`` "higher") is as far too high, at F = 0, as it was too low.

    >>> [forgotten(x, 0.9, 0.1) for x in (0.9, 0.5, 0.1, 0.05, 0.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> [forgotten(x, 1.0, 3.0, "higher") for x in (1.0, 2.0, 3.0, 4.0, 9.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if better == "higher":
        if level is None:
            raise InputError(
                "a forget figure that rises as rows are forgotten needs a reference model (--compare-with)"
            )
        share = 1 - abs(level - value) / (level - target) if level > target else math.nan
    else:
        goal = level or 0.0
        share = math.nan if target <= goal else (target - value) / (target - goal) if value >= goal else value / goal
    if math.isnan(share):
        raise InputError(
            f"the forget figure of the target model is {target:.4g} and that of the reference model {level or 0:.4g}: by "
            "this figure there is nothing to forget; look at the two models and the forget set"
        )
    return min(1.0, max(0.0, share))


def retained(value: float, target: float) -> float:
    """K of the module's formula.

    >>> retained(0.4, 0.8), retained(0.9, 0.8)
    (0.5, 1.0)
    """
    if target <= 0:
        raise InputError(f"the utility figure of the target model is {target:.4g}: nothing is there to keep")
    return min(1.0, max(0.0, value / target))


def harmonic_mean(shares: Sequence[float]) -> float:
    """Harmonic mean of numbers in [0, 1]; 0 where one is 0.

    >>> harmonic_mean([0.5, 1.0]), harmonic_mean([0.0, 1.0])
    (0.6666666666666666, 0.0)
    """
    return len(shares) / sum(1 / s for s in shares) if all(s > 0 for s in shares) else 0.0


def shares(record: Record, axes: Axes) -> tuple[float | None, float | None]:
    """(F, K) of a record; None where a figure is missing, or there is nothing to forget or to retain."""
    x, x0 = value_of(record["figures"], axes.forget), value_of(record["target"], axes.forget)
    u, u0 = value_of(record["figures"], axes.utility), value_of(record["target"], axes.utility)
    level = value_of(record["reference"], axes.forget)
    f = k = None
    with contextlib.suppress(InputError):
        f = None if x is None or x0 is None else forgotten(x, x0, level, axes.better)
    with contextlib.suppress(InputError):
        k = None if u is None or u0 is None else retained(u, u0)
    return f, k


def default(axes: Axes) -> Objective:
    """The harmonic mean of F and K, or F alone where ``axes`` has no utility figure; NaN where a figure is missing."""

    def objective(record: Record) -> float:
        needed = shares(record, axes)[: 1 if axes.utility is None else 2]
        return math.nan if None in needed else harmonic_mean([s for s in needed if s is not None])

    return objective


def named(spec: str | None, axes: Axes) -> Objective:
    """The objective of the settings: None, ``part/name`` of a figure to maximise, or ``FILE.py:NAME``, a function of a
    record.
    """
    if spec is None:
        return default(axes)
    if plugins.is_file(spec):
        function, file = plugins.of_file("objective", spec)
        return _checked(function, spec, file)

    def figure(record: Record) -> float:
        value = value_of(record["figures"], spec)
        return math.nan if value is None else value

    return figure


def check(spec: str | None, axes: Axes, target: Figures, reference: Figures | None) -> None:
    """Raise InputError where a figure that is named is none of ``target``'s, or the formula has no value."""
    known = [f"{f['part']}/{f['name']}" for f in target]
    wanted = [axes.forget, axes.utility, None if spec is None or plugins.is_file(spec) else spec]
    for figure in filter(None, wanted):
        if figure not in known:
            raise InputError(
                f"there is no figure {figure!r}{nearest(figure, known)}; there are {', '.join(sorted(known))}"
            )
    if spec is None:
        x0, u0 = value_of(target, axes.forget), value_of(target, axes.utility)
        if x0 is not None:
            forgotten(x0, x0, value_of(reference, axes.forget), axes.better)
        if u0 is not None:
            retained(u0, u0)


def score(record: Record, axes: Axes, objective: Objective) -> Score:
    """The objective's value, and the two shares."""
    value = objective(record)
    return Score(value if math.isfinite(value) else None, *shares(record, axes))


def _checked(function: Callable[..., Any], spec: str, file: Any) -> Objective:
    def objective(record: Record) -> float:
        try:
            return float(function(record))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the objective {spec} failed: {type(error).__name__}{plugins.line(error, file)}"
            ) from error

    return objective
