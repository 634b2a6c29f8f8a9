"""The papers' methods as a table: each is a forget loss, a retain loss, and how they meet.

Defaults are the papers' values; each docstring quotes its source.  ``retain`` is ``nll``, or ``kl`` or ``js`` (to the
frozen target model, at labelled tokens), or ``none`` where the paper has none; the weights multiply the two losses.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from expunge import losses
from expunge.combine import Bilevel, PrimalDual, WeightedSum
from expunge.errors import InputError
from expunge.forward.view import Positions
from expunge.method import Method, Objective, method
from expunge.sophia import Settings as Sophia

Retain = Literal["nll", "kl", "js"]
RetainOrNone = Literal["none", "nll", "kl", "js"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

RETAIN: dict[str, Objective] = {
    "nll": Objective(losses.nll, ("retain",)),
    "kl": Objective(losses.kl, ("retain",), reference="logits"),
    "js": Objective(losses.js, ("retain",), reference="logits"),
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


@method(paper="arXiv:2506.05314", search={"max_multiplier": None})
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
    ``(1 + tolerance) ×`` the start model's retain loss; with ``kl`` or ``js``, which start at 0, give one.
    ``max_multiplier`` and ``tolerance`` are this library's.
    To reproduce the public code: ``positions="all"`` (before 5 October 2025) or ``"answer_unshifted"`` (after), and
    ``token_average=True``.
    """
    check_budget(budget, retain)
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
    return Method({"forget": forget, "retain": RETAIN[retain]}, bilevel(gamma, relative, one_sided, retain))


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
    return Method({"forget": forget, "retain": RETAIN[retain]}, bilevel(gamma, relative, one_sided, retain))


@method(paper="arXiv:2502.19301")
def wga(
    *,
    beta: NonNegative = 1.0,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
) -> Method:
    """Weighted gradient ascent: gradient difference whose forget tokens weigh p^β.

    Wang et al. 2025; β 1, weights 1 and 1, learning rate 1e-5 as in OpenUnlearning's recipe.
    """
    forget = Objective(partial(losses.wga, beta=beta), ("forget",))
    return Method({"forget": forget, "retain": RETAIN[retain]}, WeightedSum(forget_weight, retain_weight))


@method(paper="arXiv:2505.11953")
def satimp(
    *,
    beta_saturation: NonNegative = 5.0,
    beta_importance: NonNegative = 1.0,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 0.1,
    retain: Retain = "nll",
) -> Method:
    """Gradient ascent on the forget tokens that are neither forgotten nor certain (saturation and importance).

    Yang et al. 2025; β₁ 5 and β₂ 1, a forget loss of ten times the retain loss's weight and learning rate 1e-5 as the
    authors' note in OpenUnlearning says of the paper; its configuration there has the two weights the other way round.
    """
    loss = partial(losses.satimp, beta_saturation=beta_saturation, beta_importance=beta_importance)
    forget = Objective(loss, ("forget",))
    return Method({"forget": forget, "retain": RETAIN[retain]}, WeightedSum(forget_weight, retain_weight))


@method(paper="arXiv:2402.10052")
def undial(
    *,
    beta: NonNegative = 10.0,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: RetainOrNone = "none",
) -> Method:
    """Distil the target model with the forget tokens' logits lowered (self-distillation on adjusted logits).

    Dong et al. 2024; β 10, no retain loss and learning rate 1e-4 as in OpenUnlearning's recipe.  The paper's own 1e-4 is
    for LoRA (rank 8, alpha 16), so an adapter trains with it too, not with 20 times as much.
    """
    forget = Objective(partial(losses.undial, beta=beta), ("forget",), reference="logits")
    made = _alone(forget, retain, forget_weight, retain_weight, learning_rate=1e-4)
    return replace(made, lora_learning_rate=1e-4)


@method(paper="arXiv:2503.01224")
def ce_u(
    *,
    ignore_first: Annotated[int, Field(ge=0)] = 1,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: RetainOrNone = "none",
) -> Method:
    """Cross-entropy unlearning: distil the model's own distribution without the forget token.

    Yang 2025; the first answer token left alone, no retain loss and learning rate 1e-5 as in OpenUnlearning's recipe.
    """
    forget = Objective(partial(losses.ce_u, ignore_first=ignore_first), ("forget",))
    return _alone(forget, retain, forget_weight, retain_weight)


@method(paper="arXiv:2410.11143")
def flat(
    *,
    divergence: losses.Divergence = "total_variation",
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: RetainOrNone = "none",
) -> Method:
    """Drive a refusal and the forget answer apart in an f-divergence, on forget data only (FLAT).

    Wang et al. 2024; total variation, no retain loss and learning rate 1e-5 as in the public code's configuration.  The
    template answer is a refusal, one drawn for each forget row by the seed.
    """
    forget = Objective(partial(losses.flat, divergence=divergence), ("forget", "alternate"))
    return _alone(forget, retain, forget_weight, retain_weight, alternate="refusal")


@method(paper="arXiv:2509.02820")
def jensun(
    *,
    refusal: str = "No idea",
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "js",
) -> Method:
    """Say a refusal's tokens on the forget set, stay near the target on the retain set; both losses are bounded.

    Singh et al. 2025; the refusal "No idea", weights 1 and 1 and learning rate 8e-6 as in the public code.
    """
    forget = Objective(losses.jensun, ("forget", "alternate"))
    made = _alone(forget, retain, forget_weight, retain_weight, alternate="refusal", learning_rate=8e-6)
    return replace(made, refusal=refusal)


@method(paper="arXiv:2409.13474")
def altpo(
    *,
    beta: Positive = 0.1,
    forget_weight: NonNegative = 1.0,
    retain_weight: NonNegative = 1.0,
    retain: Retain = "nll",
) -> Method:
    """Prefer an alternate answer that the target model made up itself to the forget answer (AltPO).

    Mekala et al. 2024; β 0.1, weights 1 and 1 and learning rate 5e-5 as in the public code's TOFU command, which takes
    five alternates of each row for two epochs; here each row has one.  The alternates are sampled before training
    (``expunge.unlearning.alternates``) and kept in ``alternates.json`` beside the run.
    """
    made = _preference("generated", beta, forget_weight, retain_weight, retain)
    return replace(made, learning_rate=5e-5)


@method(paper="arXiv:2212.04089")
def task_vector(*, scale: Positive = 1.0) -> Method:
    """Learn the forget set, then go the same way back: θ = θ_target - scale · (θ_trained - θ_target).

    Ilharco et al. 2023 (task arithmetic by negation); the scale is chosen on held-out data there, 1 is the plain
    negation.  With LoRA only B is multiplied by -scale, which is exact; without, every weight that trains is turned round.
    ``expunge release`` repeats such steps, with a retain module beside them.
    """
    return Method({"forget": Objective(losses.nll, ("forget",))}, WeightedSum(), negate=scale)


def check_budget(budget: float | None, retain: Retain) -> None:
    """Raise InputError where the budget is to follow from a retain loss that is 0 at the start."""
    if budget is None and retain != "nll":
        raise InputError(
            f"the budget is taken from the start model's retain loss, which is 0 with retain={retain!r} (a divergence from "
            "itself); give budget=… or take retain='nll'"
        )


def bilevel(gamma: float, relative: bool, one_sided: bool, retain: Retain) -> Bilevel:
    """BLUR's combiner; InputError for a relative γ over a retain loss whose gradient is 0 at the start."""
    if relative and retain != "nll":
        raise InputError(
            "a relative γ measures the forget step by the retain gradient, which is 0 at the start with "
            f"retain={retain!r}, so nothing would ever move; take relative=false or retain='nll'"
        )
    return Bilevel(gamma, relative, one_sided)


def _alone(
    forget: Objective,
    retain: RetainOrNone,
    forget_weight: float,
    retain_weight: float,
    *,
    alternate: Literal["refusal"] | None = None,
    learning_rate: float = 1e-5,
) -> Method:
    """A weighted sum with a retain loss or, with ``none``, without."""
    objectives = {"forget": forget} | ({} if retain == "none" else {"retain": RETAIN[retain]})
    combine = WeightedSum(forget_weight, retain_weight)
    return Method(objectives, combine, alternate=alternate, learning_rate=learning_rate)


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
    alternate: Literal["given", "refusal", "generated"],
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
