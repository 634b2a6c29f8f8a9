"""Methods that end by themselves, where a model that never saw the rows would be.

The forget loss pushes a token only while it is likelier than under that model (``--level``; the base of an adapter if left
out), and training stops when the forget set as a whole is down to it: see :mod:`expunge.training.levels`.  Why so:
``docs/design/0008-levels.md``; what was measured so far: ``docs/LOG.md``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from pydantic import Field

from expunge import losses
from expunge.combine import PrimalDual, WeightedSum
from expunge.method import Method, Objective, method
from expunge.methods.published import RETAIN, NonNegative, Positive, Retain, bilevel, check_budget

RATE, LORA_RATE = 2.5e-5, 5e-4


def _method(beta: float, retain: Retain) -> Method:
    forget = Objective(partial(losses.level_wga, beta=beta), ("forget",), reference="level")
    objectives = {"forget": forget, "retain": RETAIN[retain]}
    return Method(objectives, WeightedSum(), learning_rate=RATE, lora_learning_rate=LORA_RATE)


@method(paper="arXiv:2502.19301")
def level_wga(
    *,
    beta: NonNegative = 1.0,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
) -> Method:
    """Weighted gradient ascent on tokens that are likelier than under a model that never saw them, beside a retain loss.

    A method of this library.  The weights p^β are of Wang et al. 2025 (``wga``).
    """
    return replace(_method(beta, retain), combine=WeightedSum(forget_weight, retain_weight))


@method(paper="arXiv:2506.08164")
def blur_level(
    *,
    beta: NonNegative = 1.0,
    gamma: NonNegative = 1.0,
    one_sided: bool = False,
    retain: Retain = "nll",
) -> Method:
    """BLUR with an end: forgetting has priority as long as tokens are likelier than under a model that never saw them.

    A method of this library; the combiner is of Reisizadeh et al. 2025 (``blur``).  γ is not relative, so the forget part of
    a step falls with the tokens that are left.
    """
    return replace(_method(beta, retain), combine=bilevel(gamma, False, one_sided, retain))


@method(paper="arXiv:2506.05314")
def pdu_level(
    *,
    beta: NonNegative = 1.0,
    budget: Positive | None = None,
    tolerance: NonNegative = 0.5,
    step_size: NonNegative = 2.0,
    multiplier: NonNegative = 0.5,
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    warmup_steps: Annotated[int, Field(ge=0)] | None = None,
    max_multiplier: Positive = 1000.0,
    retain: Retain = "nll",
) -> Method:
    """PDU's retain budget around a forget loss with an end: tokens are pushed to where a model that never saw them is.

    A method of this library; the constraint is of Entesari et al. 2025 (``pdu``).  λ₀ 0.5 and step 2 fit a forget loss that
    is at most 1/(eβ); ``budget=None`` takes ``(1 + tolerance) ×`` the start model's retain loss.
    """
    check_budget(budget, retain)
    combine = PrimalDual(budget, tolerance, step_size, multiplier, warmup, warmup_steps, max_multiplier)
    return replace(_method(beta, retain), combine=combine)
