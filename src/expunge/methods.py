"""The field as a table: each method is a forget loss, a retain loss, and how they meet.

Defaults are the papers' values; each docstring quotes its source.  ``retain`` is ``nll`` or ``kl`` (to the frozen
target model, at labelled tokens); the weights multiply the two losses.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from expunge import losses
from expunge.combine import Bilevel, PrimalDual, WeightedSum
from expunge.forward import Positions
from expunge.method import Method, Objective, method
from expunge.sophia import Settings as Sophia

Retain = Literal["nll", "kl"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

RETAIN: dict[str, Objective] = {
    "nll": Objective(losses.nll, ("retain",)),
    "kl": Objective(losses.kl, ("retain",), reference="logits"),
}


@method(paper="arXiv:2210.01504")
def gradient_ascent() -> Method:
    """Climb the loss of the forget answers; nothing protects the rest.

    Jang et al. 2023.  Learning rate 1e-5 as in OpenUnlearning's TOFU recipes.
    """
    return Method({"forget": Objective(losses.gradient_ascent, ("forget",))}, WeightedSum())


@method(paper="arXiv:2401.06121")
def grad_diff(*, forget_weight: NonNegative = 1.0, retain_weight: NonNegative = 1.0, retain: Retain = "nll") -> Method:
    """Gradient ascent on the forget answers, descent on the retain answers.

    Maini et al. 2024 (TOFU), "gradient difference" of Liu et al. 2022; weights 1 and 1 as there.
    ``retain="kl"`` is TOFU's KL-minimisation baseline.
    """
    return Method(
        {"forget": Objective(losses.gradient_ascent, ("forget",)), "retain": RETAIN[retain]},
        WeightedSum(forget_weight, retain_weight),
    )


@method(paper="arXiv:2404.05868")
def npo(
    *,
    beta: Positive = 0.1,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
    batch_mean: bool = False,
) -> Method:
    """Negative preference optimisation with a retain loss (NPO-RT; NPO-KL with ``retain="kl"``).

    Zhang et al. 2024; β 0.1 and weights 1 and 1 as in the paper's TOFU experiments and OpenUnlearning's recipes.
    ``batch_mean`` reproduces the code BLUR was published with: see :func:`expunge.losses.npo`.
    """
    forget = Objective(partial(losses.npo, beta=beta, batch_mean=batch_mean), ("forget",), reference="token_logp")
    return Method({"forget": forget, "retain": RETAIN[retain]}, WeightedSum(forget_weight, retain_weight))


@method(paper="arXiv:2410.07163")
def simnpo(
    *,
    beta: Positive = 4.5,
    margin: Finite = 0.0,
    forget_weight: NonNegative = 0.125,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
) -> Method:
    """NPO without a reference model, on length-normalised log-probabilities.

    Fan et al. 2024; β 4.5, margin 0, forget weight 0.125 as in OpenUnlearning's recipe.  ``margin`` is the paper's γ,
    outside β.
    """
    forget = Objective(partial(losses.simnpo, beta=beta, margin=margin), ("forget",))
    return Method({"forget": forget, "retain": RETAIN[retain]}, WeightedSum(forget_weight, retain_weight))


@method(paper="arXiv:2305.18290")
def dpo(
    *,
    beta: Positive = 0.1,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
) -> Method:
    """Prefer a given alternate answer (column ``alternate`` of the forget set) to the forget answer.

    Rafailov et al. 2023; β 0.1 and weights 1 and 1 as in OpenUnlearning's recipe.
    """
    return _preference("given", beta, forget_weight, retain_weight, retain)


@method(paper="arXiv:2401.06121")
def idk_dpo(
    *,
    beta: Positive = 0.1,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
) -> Method:
    """Prefer a refusal ("I don't know") to the forget answer.

    Maini et al. 2024 (TOFU); β 0.1 as there.  Each forget row gets one refusal, drawn by the seed.
    """
    return _preference("refusal", beta, forget_weight, retain_weight, retain)


@method(paper="arXiv:2506.05314")
def pdu(
    *,
    budget: Positive | None = None,
    tolerance: NonNegative = 0.5,
    step_size: NonNegative = 5.0,
    multiplier: NonNegative = 100.0,
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    warmup_steps: Annotated[int, Field(ge=0)] | None = None,
    max_multiplier: Positive = 1000.0,
    retain: Retain = "nll",
    positions: Positions = "answer",
    token_average: bool = False,
) -> Method:
    """Flatten the logit margin on the forget set, subject to a budget on the retain loss (primal-dual unlearning).

    Entesari et al. 2025; λ₀ 100 and dual step 5 are the published TOFU values, the budget there is 0.3 nats per token,
    warm-up 5 of 10 epochs (``warmup`` is that share, counted in optimizer steps).  ``budget=None`` takes
    ``(1 + tolerance) ×`` the start model's retain loss; ``max_multiplier`` and ``tolerance`` are this library's.
    To reproduce the public code: ``positions="all"`` (before 5 October 2025) or ``"answer_unshifted"`` (after), and
    ``token_average=True``.
    """
    forget = Objective(partial(losses.flattened_margin, token_average=token_average), ("forget",), positions=positions)
    combine = PrimalDual(budget, tolerance, step_size, multiplier, warmup, warmup_steps, max_multiplier)
    return Method({"forget": forget, "retain": RETAIN[retain]}, combine)


@method(paper="arXiv:2506.08164")
def blur_npo(
    *,
    beta: Positive = 0.1,
    gamma: NonNegative = 1.0,
    relative: bool = False,
    one_sided: bool = False,
    retain: Retain = "nll",
    batch_mean: bool = False,
) -> Method:
    """BLUR: NPO has priority; the retain gradient is projected off its gradient.

    Reisizadeh et al. 2025; β 0.1 and γ 1 as in the published TOFU code, learning rate 1e-5.  ``batch_mean`` as there is
    ``True``; the default is the formula's mean over examples.
    """
    forget = Objective(partial(losses.npo, beta=beta, batch_mean=batch_mean), ("forget",), reference="token_logp")
    return Method({"forget": forget, "retain": RETAIN[retain]}, Bilevel(gamma, relative, one_sided))


@method(paper="arXiv:2506.08164")
def blur_margin(
    *,
    gamma: NonNegative = 0.3,
    relative: bool = True,
    one_sided: bool = False,
    retain: Retain = "nll",
    token_average: bool = False,
) -> Method:
    """BLUR over PDU's flattened margin: a forget loss bounded below, with priority over the retain gradient.

    A mixture of this library.  The margin's gradient is hundreds of times the retain gradient, so γ is relative by
    default: the forget part of a step is γ times as long as the retain gradient.  γ 0.3 by measurement (docs/LOG.md): on a
    slice of TOFU the retain answers lose a twentieth of their probability with it, and a quarter with 1.
    """
    forget = Objective(partial(losses.flattened_margin, token_average=token_average), ("forget",))
    return Method({"forget": forget, "retain": RETAIN[retain]}, Bilevel(gamma, relative, one_sided))


@method(paper="arXiv:2404.18239")
def soul_grad_diff(
    *, forget_weight: NonNegative = 1.0, retain_weight: NonNegative = 2.0, retain: Retain = "nll"
) -> Method:
    """SOUL: gradient difference by Sophia's clipped second-order steps.

    Jia et al. 2024; learning rate 5e-6, retain weight 2, β₁ 0.9, β₂ 0.95, ρ 0.04 and weight decay 0.1 as in the published
    TOFU configuration, the curvature as in the paper; ``--optimizer sophia_published`` takes it as the published code does.
    """
    made = grad_diff(forget_weight=forget_weight, retain_weight=retain_weight, retain=retain)
    return replace(made, optimizer=Sophia(), learning_rate=5e-6)


@method(paper="arXiv:2404.18239")
def soul_npo(
    *,
    beta: Positive = 0.1,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 2.0,
    retain: Retain = "nll",
) -> Method:
    """SOUL: negative preference optimisation by Sophia's clipped second-order steps.

    Jia et al. 2024; β 0.1 as there, retain weight and learning rate those of ``soul_grad_diff``.  The published code
    averages NPO's log-ratio over the answer's tokens; this is their sum, as in NPO's own paper.
    """
    made = npo(beta=beta, forget_weight=forget_weight, retain_weight=retain_weight, retain=retain)
    return replace(made, optimizer=Sophia(), learning_rate=5e-6)


def _preference(
    alternate: Literal["given", "refusal"],
    beta: float,
    forget_weight: float,
    retain_weight: float,
    retain: Retain,
) -> Method:
    forget = Objective(partial(losses.dpo, beta=beta), ("forget", "alternate"), reference="token_logp")
    return Method(
        {"forget": forget, "retain": RETAIN[retain]},
        WeightedSum(forget_weight, retain_weight),
        alternate=alternate,
    )
