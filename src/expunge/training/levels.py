r"""Stop where the forget set is as strange to the model as to one that never saw it.

Row by row, :math:`d_i = \mathrm{nll}_i - \mathrm{nll}^{\mathrm{level}}_i` is how much less likely an answer has become, per
token, than under the model that gives the level.  Before training the mean :math:`\bar d` is below 0; the margin ε is a
tenth of that distance, :math:`\varepsilon = \tfrac{1}{10}\,|\bar d_0|`.  With the standard error s of the mean over n
rows, two one-sided tests at 5 % (Schuirmann 1987) say of a look that the set is

* *at* the level where :math:`\bar d \pm 1.645\,s` lies within :math:`\pm\varepsilon`,
* *short* of it where :math:`\bar d - 1.645\,s \le -\varepsilon`: training goes on,
* *beyond* it otherwise: it is not shown to be short, and not shown to be within.

There is a look after each epoch and one at the end; training ends at the first that is not short.  The forget loss has no
gradient at tokens below their level, so steps that are not needed cost little.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import TrainerCallback

from expunge.errors import InputError

SHARE = 0.1  # of the distance before training: the margin
QUANTILE = 1.645  # of the normal distribution at 95 %
Verdict = Literal["short", "at", "beyond"]


@dataclass(frozen=True)
class Look:
    """The mean difference to the level, ``half`` of its 90 % interval, and the ``margin`` ε, all in nats a token."""

    mean: float
    half: float
    margin: float

    @property
    def verdict(self) -> Verdict:
        """See the module.

        >>> Look(-0.5, 0.1, 0.2).verdict, Look(0.05, 0.1, 0.2).verdict, Look(0.15, 0.1, 0.2).verdict
        ('short', 'at', 'beyond')
        """
        if not self.mean - self.half > -self.margin:  # what is no number is short: the run goes on, and breaks down
            return "short"
        return "at" if self.mean + self.half < self.margin else "beyond"

    @property
    def warning(self) -> str | None:
        """A sentence where that is not at the level."""
        said = f"{self.mean:+.3g} ± {self.half:.2g} nats a token, margin {self.margin:.2g}"
        if self.verdict == "short":
            return (
                f"the forget set is not down to the level of a model that never saw it ({said}); train longer "
                "(num_train_epochs) or with a higher learning_rate"
            )
        if self.verdict == "beyond":
            return (
                f"the forget set is less likely than under a model that never saw it, or that cannot be ruled out ({said}); "
                "forgetting too much can be seen from outside, too: lower learning_rate"
            )
        return None


def look(nll: Tensor, level: Tensor, margin: float) -> Look:
    """What the rows' ``nll`` (n,) and ``level`` (n,) say.

    Hand-worked: nll (1, 3) and level (2, 2) differ by (-1, 1): mean 0, s = √2/√2 = 1, half 1.645.
    """
    d = nll - level
    error = float(d.std()) / math.sqrt(len(d)) if len(d) > 1 else 0.0
    return Look(float(d.mean()), QUANTILE * error, margin)


def of(trainer: Any) -> StopAtModelLevel:
    """The callback that ends the training of ``trainer`` at the level of its reference's model.

    Raises InputError where the start model knows the forget rows no better than that one.
    """
    held = trainer.reference.level.rows
    (stream,) = {o.on[0] for o in trainer.method.objectives.values() if o.reference == "level"}
    rows = sorted(held[stream])
    level = torch.stack([-held[stream][i].double().mean().cpu() for i in rows])

    def nll() -> Tensor:
        logp: Tensor = trainer.row_logp(stream, rows)
        return -logp

    distance = float((level - nll()).mean())
    if distance <= 0:
        raise InputError(
            f"the model knows the forget set no better than the one that gives the level ({distance:.3g} nats a token "
            "between them): by this measure there is nothing to forget; look at --level and the forget set"
        )
    return StopAtModelLevel(nll, level, distance)


class StopAtModelLevel(TrainerCallback):
    """Looks after each epoch, and ends training at the first look that is not short of the level; see the module.

    ``nll()``: of the rows (n,) under the model as it is; ``distance``: nats a token that were to go.  Nothing else is held,
    so a resumed run ends where an uninterrupted one does.
    """

    def __init__(self, nll: Callable[[], Tensor], level: Tensor, distance: float):
        self.nll, self.level, self.distance = nll, level, distance
        self.found: Look | None = None

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look."""
        self.found = look(self.nll(), self.level, SHARE * self.distance)
        control.should_training_stop |= self.found.verdict != "short"

    def conclude(self) -> Look:
        """The look at what comes out."""
        self.found = look(self.nll(), self.level, SHARE * self.distance)
        return self.found

    def described(self) -> dict[str, Any]:
        """For the record."""
        assert self.found is not None
        it = self.found
        return {
            "rows": len(self.level),
            "distance_before": self.distance,
            "margin": it.margin,
            "difference": it.mean,
            "low": it.mean - it.half,
            "high": it.mean + it.half,
            "verdict": it.verdict,
        }
