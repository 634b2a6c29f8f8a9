"""A retain budget that was not kept: what became of it, and what a person is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def outcome(trainer: Any) -> dict[str, Any] | None:
    """What became of the budget of ``trainer``'s combiner; None where it has none, or nothing was logged."""
    names = list(trainer.method.objectives)
    key = f"loss/{names[1]}" if len(names) > 1 else ""
    found: dict[str, Any] | None = trainer.combine.budget_of([h[key] for h in trainer.state.log_history if key in h])
    return found


def warning(budget: Mapping[str, Any] | None) -> str | None:
    """The sentence of a ``budget`` that was not met.

    >>> warning({"limit": 2.0, "start": 1.9, "end": 3.0, "steps": 5, "multiplier": 9.0, "max_multiplier": 10.0, "met": True})
    """
    if budget is None or budget["met"]:
        return None
    limit, end, factor = budget["limit"], budget["end"], budget["multiplier"]
    capped = factor >= budget["max_multiplier"]
    state = f"{factor:.4g}, its cap" if capped else f"{factor:.4g}"
    start = "" if budget["start"] is None else f"; it was {budget['start']:.4g} before training"
    more = "max_multiplier" if capped else "step_size, or train for more steps"
    above = f", {end / limit:.3g} times" if limit > 0 else ", above"
    return (
        f"the budget was not kept: the retain loss was {end:.4g} over the last {budget['steps']} logged "
        f"steps{above} the budget of {limit:.4g}, with λ at {state}{start}. "
        f"Lower learning_rate, raise {more}, or give a budget that can be kept (-p budget={1.05 * end:.3g})"
    )
