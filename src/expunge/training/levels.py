r"""Stop where the forget set is as strange to the model as to one that never saw it.

Row by row, :math:`d_i = \mathrm{nll}_i - \mathrm{nll}^{\mathrm{level}}_i` is how much less likely an answer has become, per
token, than under the model that gives the level.  Before training the mean :math:`\bar d` is below 0; the margin ε is a
tenth of that distance, :math:`\varepsilon = \tfrac{1}{10}\,|\bar d_0|`.  With the standard error s of the mean over n
rows, the interval :math:`\bar d \pm 1.645\,s` is that of two one-sided tests at 5 % (Schuirmann 1987).  The set is

* *at* the level where the interval lies within ±ε,
* *short* of it where :math:`\bar d < -\varepsilon`, *beyond* it where :math:`\bar d > \varepsilon`,
* *near* it otherwise: the mean is within ±ε, and the rows are too few, or differ too much, to show that it stays there.

The set is tested every few steps, so that the tests take no more than a fifth of the time, and once at the end.
Training may end at a test that is *at* the level or whose mean is 0 or above.  Where the steps since the test before went
too far, the weights are then moved back on the straight line to those of that test, to where the mean is 0
(:func:`crossing`).  It does end where these weights are not beyond the level and keep 95 % of the probability of the retain
rows; otherwise it goes on from the weights of the last step, for what was lost on the way comes back while the forget set
stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from expunge.data.example import evenly
from expunge.errors import InputError
from expunge.training import finite

SHARE = 0.1  # of the distance before training: the margin
QUANTILE = 1.645  # of the normal distribution at 95 %
COST = 0.2  # of the time of the steps: what the tests take at most
BACKWARD = 3  # times the work of a forward pass are a forward and a backward one
ROWS = 256  # of the forget set that are tested, at most
TRIES = 8  # on the line between two tests
KEEP = 0.95  # of the probability of retain rows, before a run ends by itself
RETAIN_ROWS = 64  # of the retain set that are looked at for it, at most
Verdict = Literal["short", "near", "at", "beyond"]


@dataclass(frozen=True)
class Difference:
    """The mean difference to the level, ``half`` of its 90 % interval, and the ``margin`` ε, all in nats a token."""

    mean: float
    half: float
    margin: float

    @property
    def verdict(self) -> Verdict:
        """See the module.

        >>> [Difference(mean, 0.1, 0.2).verdict for mean in (-0.5, -0.15, 0.05, 0.25)]
        ['short', 'near', 'at', 'beyond']
        """
        if not self.mean >= -self.margin:  # what is no number is short: the run goes on, and breaks down
            return "short"
        if self.mean > self.margin:
            return "beyond"
        return "at" if abs(self.mean) + self.half < self.margin else "near"

    @property
    def enough(self) -> bool:
        """Whether training may end here."""
        return self.verdict == "at" or self.mean >= 0

    @property
    def warning(self) -> str | None:
        """A sentence where the set is not shown to be at the level."""
        measured = f"{self.mean:+.3g} ± {self.half:.2g} nats a token, margin {self.margin:.2g}"
        if self.verdict == "short":
            return (
                f"the forget set is not down to the level of a model that never saw it ({measured}); train longer "
                "(num_train_epochs) or with a higher learning_rate"
            )
        if self.verdict == "beyond":
            return (
                f"the forget set is less likely than under a model that never saw it ({measured}); forgetting too much can "
                "be seen from outside, too: lower learning_rate"
            )
        if self.verdict == "near":
            return (
                f"in the mean the forget set is at the level of a model that never saw it ({measured}), but its rows are "
                "too few or differ too much to show that it is; more forget rows would tell"
            )
        return None


def difference(nll: Tensor, level: Tensor, margin: float) -> Difference:
    """That of the rows' ``nll`` (n,) to their ``level`` (n,).

    Hand-worked: nll (1, 3) and level (2, 2) differ by (-1, 1): mean 0, s = √2/√2 = 1, half 1.645.
    """
    d = nll - level
    error = float(d.std()) / math.sqrt(len(d)) if len(d) > 1 else 0.0
    return Difference(float(d.mean()), QUANTILE * error, margin)


def period(rows: int, rows_a_step: int) -> int:
    """Steps between two tests of ``rows``, a step being a forward and a backward pass over ``rows_a_step``.

    >>> period(40, 16), period(16, 64)
    (5, 1)
    """
    return max(1, math.ceil(rows / (COST * BACKWARD * rows_a_step)))


def crossing(below: float, above: float, at: Callable[[float], float], tolerance: float) -> tuple[float, float]:
    """(share, value) of a point of [0, 1] where ``at`` is within ``tolerance`` of 0, ``below`` at 0 and ``above`` at 1.

    By false position, with the Illinois weights (Dowell & Jarratt 1971): at most ``TRIES`` values of ``at``; the best of
    all.

    >>> crossing(-1.0, 3.0, lambda x: 4 * x - 1, 0.01)
    (0.25, 0.0)
    """
    low, high, left, right = 0.0, 1.0, below, above
    best = (1.0, above)
    for _ in range(TRIES):
        share = (low * right - high * left) / (right - left)
        value = at(share)
        if not math.isfinite(value):
            break
        best = min(best, (share, value), key=lambda point: abs(point[1]))
        if abs(value) <= tolerance:
            break
        if value < 0:
            low, left, right = share, value, right / 2
        else:
            high, right, left = share, value, left / 2
    return best


def of(trainer: Any) -> StopAtModelLevel:
    """The callback that ends the training of ``trainer`` at the level of its reference's model.

    Raises InputError where the start model knows the forget rows no better than that one.
    """
    held = trainer.reference.level
    (stream,) = {o.on[0] for o in trainer.method.objectives.values() if o.reference == "level"}
    rows = evenly(sorted(held.rows[stream]), ROWS)
    level = torch.stack([-held.rows[stream][i][:, 0].double().mean().cpu() for i in rows])

    def nll() -> Tensor:
        logp: Tensor = trainer.row_logp(stream, rows)
        return -logp

    distance = float((level - nll()).mean())
    if distance <= 0:
        raise InputError(
            f"the model knows the forget set no better than a model that never saw it would, as far as can be told "
            f"({distance:.3g} nats a token between them): there is nothing to forget; look at what gives the level "
            "(--level, --holdout) and the forget set"
        )
    args, retain = trainer.args, trainer.train_dataset.streams.get("retain")
    kept = RetainProbability(evenly(retain, RETAIN_ROWS), trainer.probability) if retain else None
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size * len(trainer.method.objectives)
    return StopAtModelLevel(trainer.model, nll, level, distance, kept, period(len(rows), step))


class RetainProbability:
    """How much of the start model's probability of some retain ``rows`` is left: 1 before training."""

    def __init__(self, rows: Sequence[Any], probability: Callable[[Sequence[Any]], float]):
        self.rows, self.probability = rows, probability
        self.start = probability(rows)

    def share(self) -> float:
        """Of the model as it is."""
        return self.probability(self.rows) / self.start if self.start > 0 else 1.0


class StopAtModelLevel(TrainerCallback):
    """Tests the forget set every so many steps, and ends training where it is enough; see the module.

    ``nll()``: of the rows (n,) under ``model`` as it is; ``distance``: nats a token that were to go; ``kept``: what is left
    of the retain rows, None where there are none.  ``before`` holds the weights of the last test, or of the start.
    ``share``: how far the weights that came out are from there to those of the last step.
    """

    def __init__(
        self,
        model: nn.Module,
        nll: Callable[[], Tensor],
        level: Tensor,
        distance: float,
        kept: RetainProbability | None = None,
        every: int = 1,
    ):
        self.model, self.nll, self.level, self.distance = model, nll, level, distance
        self.kept, self.every = kept, every
        self.found: Difference | None = None
        self.kept_share: float | None = None
        self.before: finite.Copy | None = None
        self.before_mean = -distance
        self.share = 1.0

    def test(self) -> Difference:
        """The difference of the model as it is."""
        return difference(self.nll(), self.level, SHARE * self.distance)

    @property
    def good(self) -> bool:
        """Whether the last test ends the run: at the level, and enough of the rest was kept."""
        enough = self.found is not None and self.found.enough and self.found.verdict != "beyond"
        return enough and (self.kept_share is None or self.kept_share >= KEEP)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the weights to go back towards, unless a checkpoint had them."""
        if self.before is None:
            self.before = finite.copy_of(self.model, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Test where it is time."""
        if state.global_step % self.every == 0:
            control.should_training_stop |= self.judge(state.global_step)

    def judge(self, step: int, *, last: bool = False) -> bool:
        """Test the weights after ``step`` steps, as they are or moved back; whether the run ends with them.

        If not, and they are not the ``last``, the model is as it was.
        """
        self.found, self.share, self.kept_share = self.test(), 1.0, None
        mean, margin = self.found.mean, self.found.margin
        after = finite.copy_of(self.model, step) if self.before_mean < 0 and mean > margin / 4 else None
        if after:
            self._move_back(after)
        if self.kept and self.found.enough:
            self.kept_share = self.kept.share()
        if self.good or last:
            return True
        if after:
            finite.restore(self.model, after)
        if math.isfinite(mean):
            self.before, self.before_mean = finite.copy_of(self.model, step, self.before), mean
        return False

    def _move_back(self, after: finite.Copy) -> None:
        """To where the mean is 0 on the line from the weights of the test before to those of ``after``."""
        assert self.found is not None and self.before is not None
        before, tested = self.before, {1.0: self.found}

        def mean(share: float) -> float:
            finite.restore(self.model, finite.between(before, after, share))
            tested[share] = self.test()
            return tested[share].mean

        self.share, _ = crossing(self.before_mean, self.found.mean, mean, self.found.margin / 4)
        finite.restore(self.model, finite.between(before, after, self.share))
        self.found = tested[self.share]

    def conclude(self, step: int) -> Difference:
        """The difference of what comes out, the weights after ``step`` steps; moved back, if that was not done."""
        if not self.good:
            self.judge(step, last=True)
        assert self.found is not None
        return self.found

    # -- record and checkpoint ----------------------------------------------------------------------------------------------
    def weights(self) -> finite.Copy | None:
        """The weights to go back towards, whole: a device may still be writing into them."""
        return finite.arrived(self.model, self.before)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside these weights."""
        step = self.before.step if self.before else None
        return {"before": step, "mean": self.before_mean, "share": self.share, "kept": self.kept_share}

    def take(self, state: Mapping[str, Any], before: finite.Copy | None) -> None:
        """Go on with what :meth:`state` gave, and the weights."""
        self.before, self.before_mean, self.share = before, float(state["mean"]), float(state["share"])
        self.kept_share = state["kept"]

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
            "every": self.every,
            "share_of_last_steps": self.share,
            "kept": self.kept_share,
        }
