"""Rows of the table that work on a layer's activations: RMU, and BLUR over its losses."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field

from expunge import losses
from expunge.combine import Bilevel, WeightedSum
from expunge.method import Activations, Method, Objective, method
from expunge.methods.published import NonNegative, Positive

Layer = Annotated[int, Field(ge=0)]


@method(paper="arXiv:2403.03218")
def rmu(
    *,
    layer: Layer = 7,
    steering_coefficient: Positive = 6.5,
    retain_weight: NonNegative = 1200.0,
    trainable: str | None = None,
    direction_seed: int = 0,
) -> Method:
    """Representation misdirection: steer the forget texts' activations at a layer, keep those of the retain texts.

    Li et al. 2024; layer 7, coefficient 6.5, retain weight (α) 1200 and learning rate 5e-5 are the published values for
    Zephyr-7B.  The coefficient is an activation's length, so it has to grow with the model's own: a few times the length
    of its activations at that layer.  Trains the down-projections of the layer and the two below it, as there;
    ``trainable`` is another regular expression on weights' names; ``direction_seed`` draws the direction.  No layer above
    is run, forward or backward.
    """
    return _misdirection(layer, steering_coefficient, trainable, direction_seed, WeightedSum(1.0, retain_weight))


@method(paper="arXiv:2506.08164")
def blur_rmu(
    *,
    layer: Layer = 7,
    steering_coefficient: Positive = 6.5,
    gamma: NonNegative = 0.00125,
    one_sided: bool = False,
    trainable: str | None = None,
    direction_seed: int = 0,
) -> Method:
    r"""BLUR over RMU's losses: the activation-matching gradient is projected off the steering gradient.

    Reisizadeh et al. 2025.  The published WMDP code steps along :math:`g_f + \alpha\,(g_r - \mathrm{proj}_{g_f} g_r)`; up to
    a length, which Adam removes, that is ``gamma = 1/α``, and its α of 800 is the default here.  Learning rate 5e-5,
    layer 7, coefficient 6.5, the trained matrices and the direction as in :func:`rmu`.  γ is not relative
    here: the matching gradient is 0 at the start, and so would be every step.
    """
    combine = Bilevel(gamma, one_sided=one_sided)
    return _misdirection(layer, steering_coefficient, trainable, direction_seed, combine)


def _misdirection(
    layer: int, steering_coefficient: float, trainable: str | None, seed: int, combine: WeightedSum | Bilevel
) -> Method:
    steer = partial(losses.steering, layer=layer, steering_coefficient=steering_coefficient, seed=seed)
    match = partial(losses.activation_matching, layer=layer)
    return Method(
        {
            "forget": Objective(steer, ("forget",)),
            "retain": Objective(match, ("retain",), reference=Activations(layer)),
        },
        combine,
        learning_rate=5e-5,
        trainable=trainable
        or rf"\.({'|'.join(str(k) for k in range(max(0, layer - 2), layer + 1))})\..*down_proj\.weight$",
    )
