"""Keep so much of the utility: training ends, and goes back, where the model no longer knows rows that it must not lose.

A probe is the mean over rows, which are not trained on, of the probability of the answer per token,
:math:`\\tfrac1n\\sum_i \\pi(y_i\\mid x_i)^{1/|y_i|}`, as record and page have it of the retain set.
It is compared with that of the model before training.  Every few steps there is one, and one of the model that comes out;
after each that is not below the threshold the weights that train are copied (in main memory).  The first that is below ends
training, and the copy is put back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from expunge.errors import InputError, RunFailed
from expunge.method import Method
from expunge.training import finite
from expunge.training.stops import Stop

PROBES = 16  # in a run, unless it is said how often
MAX_ROWS, MIN_ROWS = 64, 4  # rows of a probe
SHARE = 5  # one in so many retain rows is taken away from training


def check(method: Method, retain_rows: int | None, own_rows: int | None) -> None:
    """Raise InputError where there are no rows to probe, or no weights in between to go back to."""
    if method.negate is not None:
        raise InputError(
            f"keep: {method.name} turns the model round after its last step, so there is no earlier state to go back to; "
            "leave keep out, or choose another method"
        )
    if retain_rows is None and own_rows is None:
        raise InputError(
            "keep needs rows that the model must not lose; give a retain set (--retain FILE), or rows for this alone "
            "(--keep-rows FILE)"
        )
    if own_rows is not None and own_rows < MIN_ROWS:
        raise InputError(f"keep_rows: {own_rows} rows say little of what is kept; give {MIN_ROWS} or more")
    need = MIN_ROWS * SHARE if "retain" in method.streams else MIN_ROWS
    if own_rows is None and (retain_rows or 0) < need:
        raise InputError(
            f"keep takes one in {SHARE} retain rows away from training, at least {MIN_ROWS}, and {retain_rows} rows are too "
            f"few: give {need} or more, or rows for this alone (--keep-rows FILE)"
            if "retain" in method.streams
            else f"keep: {retain_rows} retain rows say little of what is kept; give {need} or more"
        )


def split(rows: int, seed: int) -> tuple[list[int], list[int]]:
    """(those that are trained on, those of the probe) of ``range(rows)``: one in five, at most 64, drawn by ``seed``.

    >>> [len(part) for part in split(100, 0)], [len(part) for part in split(1000, 0)]
    ([80, 20], [936, 64])
    """
    taken = set(random.Random(f"keep {seed}").sample(range(rows), min(MAX_ROWS, rows // SHARE)))
    return [i for i in range(rows) if i not in taken], sorted(taken)


@dataclass(frozen=True)
class Keep:
    """What a run is to keep: at least ``share`` of the probability of ``rows``, probed ``every`` so many steps."""

    share: float
    rows: Sequence[Any]
    every: int | None = None


class UtilityGuard(TrainerCallback):
    """Ends training at the first probe below ``keep.share`` of the first model's; see the module.

    ``probability()`` is of the model as it is; ``start`` what it was before training; ``probes``: step -> what it was.
    """

    def __init__(self, keep: Keep, model: Any, probability: Callable[[], float]):
        self.keep = keep
        self.model = model
        self.probability = probability
        self.start = probability()
        if not (math.isfinite(self.start) and self.start > 0):
            raise InputError(
                f"keep: the model's probability of these rows is {self.start:g} before training, so nothing can be lost; "
                "give rows that it knows"
            )
        self.probes: dict[int, float] = {}
        self.good: finite.Copy | None = None
        self.crossed: Stop | None = None
        self.every = keep.every or 1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The steps of the run are known now."""
        self.every = self.keep.every or max(1, round(state.max_steps / PROBES))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Probe where it is time."""
        step = state.global_step
        due = step % self.every == 0 or step >= state.max_steps
        if due and self.crossed is None and math.isfinite(value := self.probability()) and not self.judge(step, value):
            control.should_training_stop = True  # what is not finite the next step finds out

    def judge(self, step: int, value: float) -> bool:
        """Whether the probability ``value`` after ``step`` steps is enough; if not, the last good weights are put back.

        Raises RunFailed where no weights other than those of the start kept enough.
        """
        self.probes[step] = value
        if value >= self.keep.share * self.start:
            self.good = finite.copy_of(self.model, step, self.good)
            return True
        figures = {"keep": self.keep.share, "kept": value / self.start, "probed_at": step, "rows": len(self.keep.rows)}
        how = (
            f"the utility fell below keep = {self.keep.share:g} at step {step}: the probability of {len(self.keep.rows)} "
            f"rows that were not trained on went from {self.start:.3g} to {value:.3g}, {100 * value / self.start:.3g} %"
        )
        if self.good is None:
            sooner = "probe sooner (--keep-every 1), " if self.every > 1 else ""
            raise RunFailed(
                f"{how}, and no probe before it was above, so nothing is saved and the model is as it was; {sooner}lower "
                "learning_rate, or keep less"
            )
        finite.restore(self.model, self.good)
        left = self.probes[self.good.step] / self.start
        sentence = f"{how}; the weights are those after step {self.good.step}, which keep {100 * left:.3g} %"
        self.crossed = Stop("utility", self.good.step, sentence, {**figures, "kept_by_these": left})
        return False

    def conclude(self, step: int) -> bool:
        """Probe what comes out, the weights after ``step`` steps, unless that was done; whether they keep enough."""
        if self.crossed is None and step not in self.probes:
            value = self.probability()
            return self.judge(step, value if math.isfinite(value) else 0.0)
        return self.crossed is None

    # -- record and checkpoint ----------------------------------------------------------------------------------------------
    def described(self) -> dict[str, Any]:
        """For the record."""
        return {
            "threshold": self.keep.share,
            "figure": "probability",
            "rows": len(self.keep.rows),
            "every": self.every,
            "start": self.start,
            "probes": [{"step": step, "probability": p, "kept": p / self.start} for step, p in self.probes.items()],
        }

    def weights(self) -> finite.Copy | None:
        """The copy, whole: a device may still be writing into it."""
        return finite.arrived(self.model, self.good)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the copy."""
        return {
            "probes": list(self.probes.items()),
            "good": self.good.step if self.good else None,
            "crossed": self.crossed.described() if self.crossed else None,
        }

    def take(self, state: Mapping[str, Any], good: finite.Copy | None) -> None:
        """Go on with what :meth:`state` gave, and the copy."""
        self.probes = {int(step): float(p) for step, p in state["probes"]}
        self.crossed = Stop(**state["crossed"]) if state["crossed"] else None
        self.good = good
