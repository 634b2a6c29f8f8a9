"""How a run ends: its model is measured, and one that broke down is put back, or given up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from expunge.errors import InputError, RunFailed

WORSE = 1.5  # times the loss of a guess among all tokens: no model that writes anything of sense is there


def measured(trainer: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` says of the model that ``trainer`` trained, or of its last good weights where it broke down.

    Raises RunFailed where no step was good: nothing is saved then.
    """
    if not trainer.health.diverged:
        if found := _finite(measure):
            return found
        trainer.go_back("a figure of the model that came out")
    if trainer.health.diverged.good and (found := _finite(measure)):
        return found
    raise RunFailed(
        f"{trainer.health.diverged.sentence}, and no step before it was good, so nothing is saved and the model is as it "
        f"was; {remedy(trainer)}"
    )


def failed(trainer: Any, saved: str | Path) -> str | None:
    """The sentence of a run that broke down and whose last good weights are ``saved``; None for one that did not."""
    broken = trainer.health.diverged
    if broken is None:
        return None
    return f"{broken.sentence}; the weights after step {broken.good} are in {saved}; {remedy(trainer)}"


def useless(after: Mapping[str, Any], before: Mapping[str, Any], model: Any) -> list[str]:
    """A warning where ``model`` became far worse on the retain set than a guess among all its tokens would be."""
    guess = math.log(model.config.get_text_config().vocab_size)
    then, now = (((seen["figures"].get("retain") or {}).get("nll") or 0.0) for seen in (before, after))
    if now < max(WORSE * guess, then):
        return []
    return [
        f"the unlearned model is of no use: its loss on the retain set is {now:.3g}, and a guess among all its tokens has "
        f"{guess:.3g}; lower learning_rate, or train for fewer steps"
    ]


def remedy(trainer: Any) -> str:
    """What to do about a run that broke down."""
    return f"lower learning_rate, which was {trainer.args.learning_rate:g}, or choose another method"


def _finite(measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """What ``measure`` says, None where a figure is not finite or cannot be had."""
    try:
        found = measure()
    except InputError:  # the model's probabilities are not finite
        return None
    return found if _all_finite(found["figures"]) else None


def _all_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_all_finite, value.values()))
    return not isinstance(value, float) or math.isfinite(value)
