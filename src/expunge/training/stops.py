"""Why training ended before its last step: one form for all reasons, in the record, on the page and on the terminal.

=============== ============================================================ ===================== =========
``reason``      when                                                         the weights are       exit code
=============== ============================================================ ===================== =========
``not_finite``  a loss, gradient, weight or figure is NaN or infinite        the last good ones    1
``utility``     ``keep``: the probability of retain rows fell below it       the last good ones    0, warning
``zero``        no weight has had a gradient for an epoch of steps           as they were          0, warning
``holdout``     the forget set is as strange to the model as ``holdout``     as they are           0
``level``       the forget set is as strange to the model as to one that     as they are           0
                never saw it (:mod:`expunge.training.levels`)
``callback``    a callback of the user's ended training                      as they are           0
=============== ============================================================ ===================== =========

Where there are no such weights, nothing is saved and the exit code is 1: not finite or too little kept from the start, or
no gradient in the first steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from expunge.errors import RunFailed

Reason = Literal["not_finite", "utility", "zero", "holdout", "level", "callback"]
FIRST = 5  # steps without a gradient, from the first on, after which there is no use in going on


@dataclass(frozen=True)
class Stop:
    """``step``: the optimizer steps behind the weights that came out; ``figures``: the numbers of the ``sentence``."""

    reason: Reason
    step: int
    sentence: str
    figures: Mapping[str, float] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


def stop_of(trainer: Any) -> Stop | None:
    """Why the training of ``trainer`` ended; None where it had all its steps."""
    broken, state = trainer.health.diverged, trainer.state
    if broken:
        sentence = f"{broken.sentence}; the weights are those after step {broken.good}"
        return Stop("not_finite", broken.good or 0, sentence, {"not_finite_at": broken.step})
    if trainer.guard and trainer.guard.crossed:
        crossed: Stop = trainer.guard.crossed
        return crossed
    if state.global_step >= state.max_steps:
        return None
    step, at = state.global_step, f"step {state.global_step} of {state.max_steps}"
    if (still := trainer.health.still) >= patience(trainer):
        sentence = (
            f"training ended at {at}: for {still} steps no weight has had a gradient, so there was nothing left to do"
        )
        return Stop("zero", step, sentence, {"steps_without_gradient": still})
    if trainer.stop and trainer.stop.found is not None and trainer.stop.found <= trainer.stop.level:
        found, level = trainer.stop.found, trainer.stop.level
        sentence = (
            f"training ended at {at}: the forget loss {found:.4g} is down to that of the holdout set, {level:.4g}, "
            "which the model never saw"
        )
        return Stop("holdout", step, sentence, {"forget_loss": found, "holdout_level": level})
    if trainer.level and trainer.level.found and trainer.level.found.verdict != "short":
        seen, unsure = trainer.level.found, trainer.reference.level.uncertainty
        known = "" if unsure is None else f"; the level itself is known to ± {unsure:.2g}"
        sentence = (
            f"training ended at {at}: the forget set is down to the level of a model that never saw it "
            f"({seen.mean:+.3g} ± {seen.half:.2g} nats a token{known})"
        )
        return Stop(
            "level", step, sentence, {"difference": seen.mean, "half_interval": seen.half, "margin": seen.margin}
        )
    return Stop("callback", step, f"training ended at {at}: a callback ended it")


def warning(trainer: Any) -> str | None:
    """The sentence of a stop that nobody asked for, and after which the run is none that failed."""
    stop = stop_of(trainer)
    return stop.sentence if stop and stop.reason in ("utility", "zero") else None


def patience(trainer: Any) -> int:
    """After how many steps in a row without a gradient training ends: an epoch's, at the start no more than ``FIRST``."""
    args = trainer.args
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    epoch: int = max(3, math.ceil(len(trainer.train_dataset) / rows))
    return epoch if trainer.health.moved else min(epoch, FIRST)


def never_moved(trainer: Any) -> RunFailed:
    """What is raised where no step so far has had a gradient."""
    n = sum(p.requires_grad for p in trainer.model.parameters())
    first = "the first step" if trainer.health.still == 1 else f"the first {trainer.health.still} steps"
    return RunFailed(
        f"nothing trains: the gradient of all {n} tensors that train was exactly 0 in {first}, so nothing is saved and the "
        "model is as it was; the losses are at their end for these rows (a budget or margin that is met already, a "
        "weight of 0, nothing labelled), or the weights that train (--trainable) have no part in them, or the numbers "
        "underflow (leave fp16 out)"
    )
