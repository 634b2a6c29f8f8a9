"""Methods that end by themselves, where a model that never saw the rows would be.

The forget loss is 0 where each token is as likely as under that model, and each prediction as sure: one that is given, or
an estimate of it (:mod:`expunge.unlearning.level`).  Training stops when the forget set as a whole is there and the rest was
kept: see :mod:`expunge.training.levels`.  Why so: ``docs/design/0008-levels.md``; what was measured so far: ``docs/LOG.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from expunge import level_losses, losses
from expunge.combine import Combiner, PrimalDual, WeightedSum
from expunge.method import Method, Objective, method
from expunge.methods.published import RETAIN, NonNegative, Positive, Retain, bilevel

Forget = Literal["distance", "divergence", "wga", "npo", "margin", "gradient_ascent"]
LOSSES: dict[str, Callable[..., Tensor]] = {
    "distance": level_losses.level_distance,
    "divergence": level_losses.level_divergence,
    "wga": partial(level_losses.above_level, loss=losses.wga),
    "npo": partial(level_losses.above_level, loss=losses.npo),
    "margin": partial(level_losses.above_level, loss=losses.flattened_margin),
    "gradient_ascent": partial(level_losses.above_level, loss=losses.gradient_ascent),
}
RATE, LORA_RATE = 2.5e-5, 5e-4
WARMUP = 10  # steps in which the learning rate rises from 0, and λ waits
Share = Annotated[float, Field(gt=0, lt=1)]


def _method(forget: Forget, retain: Retain, combine: Combiner) -> Method:
    objectives = {"forget": Objective(LOSSES[forget], ("forget",), reference="level"), "retain": RETAIN[retain]}
    return Method(objectives, combine, learning_rate=RATE, lora_learning_rate=LORA_RATE)


@method(published="grad_diff")
def level(
    *,
    forget: Forget = "distance",
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
) -> Method:
    """Forget answers are drawn to where a model that never saw them is, beside a retain loss.

    A method of this library.  ``distance`` and ``divergence`` draw each token from both sides; the other forget losses push
    only those that are still likelier than there, and compare with that model where they read a reference.
    """
    return _method(forget, retain, WeightedSum(forget_weight, retain_weight))


@method(paper="arXiv:2506.08164", published="blur_npo")
def blur_level(
    *,
    forget: Forget = "distance",
    gamma: NonNegative = 1.0,
    one_sided: bool = True,
    retain: Retain = "nll",
) -> Method:
    """BLUR with an end: forgetting has priority until the forget answers are where a model that never saw them is.

    A method of this library; the combiner is of Reisizadeh et al. 2025 (``blur``), ``forget`` as in ``level``.  γ is not
    relative: the forget part of a step is as long as the gradient of its loss.
    """
    return _method(forget, retain, bilevel(gamma, False, one_sided, retain))


@method(paper="arXiv:2506.05314", search={"max_multiplier": None, "multiplier_warmup": None}, published="pdu")
def pdu_level(
    *,
    forget: Forget = "distance",
    keep: Share = 0.95,
    budget: Positive | None = None,
    step_size: NonNegative = 0.5,
    multiplier: NonNegative = 1.0,
    min_multiplier: NonNegative = 0.2,
    max_multiplier: Positive = 5.0,
    multiplier_warmup: Annotated[int, Field(ge=0)] = WARMUP,
    retain: Retain = "nll",
) -> Method:
    """PDU with an end: forget answers are drawn to where a model that never saw them is, subject to a retain budget.

    A method of this library; the constraint is of Entesari et al. 2025 (``pdu``), ``forget`` as in ``level``.  The budget,
    if not given, is the start model's retain loss + log(1 / ``keep``): that share of the probability of retain tokens (their
    geometric mean) is to be kept, and λ moves by at most ``step_size`` a step, both ways, after ``multiplier_warmup`` steps,
    when the learning rate is warm.  While the budget is kept λ falls below 1, where it is 1/λ that moves: forgetting then
    weighs more, for a fixed weight of the retain loss would hold the forget rows short of their level.  ``min_multiplier``
    and ``max_multiplier`` are near to each other, so that λ is soon back from where the last steps drove it.
    """
    combine = PrimalDual(
        budget,
        keep=keep,
        step_size=step_size,
        multiplier=multiplier,
        min_multiplier=min_multiplier,
        max_multiplier=max_multiplier,
        warmup_steps=multiplier_warmup,
    )
    return _method(forget, retain, combine)
