r"""Every published loss: one pure function, formula above code.

A loss takes one :class:`~expunge.forward.view.ForwardPass` per stream and returns a scalar to *minimise*.  Notation:
:math:`y` the answer, :math:`|y|` its labelled tokens, :math:`\pi_\theta` the model, :math:`\pi_{\mathrm{ref}}` the
frozen target model.  Means run over the whole optimizer step (``token_mean``, ``sequence_mean``), so cutting it into
micro-batches changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from expunge.forward import kernels
from expunge.forward.transfer import to_device
from expunge.forward.view import ForwardPass


def not_monotone(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Mark a forget loss that does not fall all the way as a text is forgotten: its value does not say what is known."""
    loss.measures_knowledge = False  # type: ignore[attr-defined]
    return loss


def nll(x: ForwardPass) -> Tensor:
    r"""Negative log-likelihood of the answers, per token: what fine-tuning minimises.

    .. math:: -\tfrac{1}{\sum_i |y_i|} \sum_i \log \pi_\theta(y_i \mid x_i)

    Every token weighs the same, so long answers weigh more, as in ``transformers``.

    Hand-worked: two tokens with probability 1/2 and 1/8 give (ln 2 + ln 8) / 2 = 2 ln 2 = 1.3863.
    """
    return x.token_mean(-x.token_logp)


def gradient_ascent(x: ForwardPass) -> Tensor:
    r"""The negated NLL: descending it climbs the loss of the forget answers.  Unbounded below.

    .. math:: +\tfrac{1}{\sum_i |y_i|} \sum_i \log \pi_\theta(y_i \mid x_i)

    Jang et al. 2023, arXiv:2210.01504.
    """
    return -nll(x)


def npo(x: ForwardPass, *, beta: float = 0.1, batch_mean: bool = False) -> Tensor:
    r"""Negative preference optimisation.

    .. math:: -\tfrac{2}{\beta}\,\mathbb{E}\,\log\sigma\Bigl(-\beta\log\tfrac{\pi_\theta(y|x)}{\pi_{\mathrm{ref}}(y|x)}\Bigr)

    Per sequence, on summed token log-probabilities.  Bounded below by 0; tends to gradient ascent as β → 0.
    ``batch_mean=True`` averages the log-ratio over the batch before the log-sigmoid, as the TOFU code that BLUR was
    published with does (a lower bound, and it depends on how a step is cut into micro-batches): for reproduction only.

    Hand-worked: π_θ = π_ref gives (2/β) ln 2, 13.863 at β = 0.1.

    Zhang et al. 2024, eq. 3, arXiv:2404.05868.
    """
    log_ratio = x.sequence_logp - x.reference.sequence_logp  # (B,)
    if batch_mean:
        log_ratio = log_ratio.mean().expand(x.size)
    return x.sequence_mean(-2 / beta * F.logsigmoid(-beta * log_ratio))


def simnpo(x: ForwardPass, *, beta: float = 4.5, margin: float = 0.0) -> Tensor:
    r"""NPO without a reference: length-normalised log-probability and a target margin γ.

    .. math:: -\tfrac{2}{\beta}\,\mathbb{E}\,\log\sigma\Bigl(-\tfrac{\beta}{|y|}\log\pi_\theta(y|x) - \gamma\Bigr)

    ``margin`` is the paper's γ.  OpenUnlearning puts its δ inside the β, so its δ is ``margin = beta * δ`` here.

    Hand-worked: an average NLL of 3 with β = 4.5, γ = 1 gives -2/4.5 · log σ(13.5 - 1) = 1.66e-6.

    Fan et al. 2024, eq. 4, arXiv:2410.07163.
    """
    mean_logp = x.sequence_logp / x.lengths  # (B,)
    return x.sequence_mean(-2 / beta * F.logsigmoid(-beta * mean_logp - margin))


def dpo(x: ForwardPass, alternate: ForwardPass, *, beta: float = 0.1) -> Tensor:
    r"""Direct preference optimisation: prefer the alternate answer y' to the forget answer y.

    .. math:: -\tfrac{2}{\beta}\,\mathbb{E}\,\log\sigma\Bigl(
        \beta\log\tfrac{\pi_\theta(y'|x)}{\pi_{\mathrm{ref}}(y'|x)}
        - \beta\log\tfrac{\pi_\theta(y|x)}{\pi_{\mathrm{ref}}(y|x)}\Bigr)

    The factor 2/β is the unlearning literature's (it makes NPO this loss without y'); DPO's own paper has 1.

    Hand-worked: π_θ = π_ref gives (2/β) ln 2, as NPO does.

    Rafailov et al. 2023, eq. 7, arXiv:2305.18290; as an unlearning baseline: Maini et al. 2024, arXiv:2401.06121.
    """
    chosen = alternate.sequence_logp - alternate.reference.sequence_logp  # (B,)
    rejected = x.sequence_logp - x.reference.sequence_logp  # (B,)
    return x.sequence_mean(-2 / beta * F.logsigmoid(beta * (chosen - rejected)))


def flattened_margin(x: ForwardPass, *, token_average: bool = False) -> Tensor:
    r"""Logit-margin flattening: push the logits of the forget answers towards all being equal.

    .. math:: \mathbb{E}\,\tfrac{1}{|y|}\sum_t \bigl(\max_k z_{t,k} - \tfrac{1}{V}\sum_k z_{t,k}\bigr)^2

    Bounded below by 0, reached where the prediction is uniform; its gradient does not vanish on confident tokens.
    The mean is per sequence, then over sequences, as in the paper; ``token_average=True`` averages over all tokens at
    once, as the public code does.

    Hand-worked: logits (3, 0, 0) have margin 3 - 1 = 2, squared 4.

    Entesari et al. 2025, arXiv:2506.05314.
    """
    squared = x.margin**2  # (N,)
    if token_average:
        return x.token_mean(squared)
    return x.sequence_mean(x.sequence_sum(squared) / x.lengths)


def steering(x: ForwardPass, *, layer: int, steering_coefficient: float, seed: int = 0) -> Tensor:
    r"""Steer the activations of the forget texts towards one fixed random direction (RMU's forget loss).

    .. math:: \mathbb{E}\,\tfrac{1}{|x|}\sum_t \tfrac{1}{D}\bigl\|h^{(\ell)}_t - c\,u\bigr\|^2,
        \qquad u = v / \|v\|,\; v_d \sim U[0, 1)

    Over the real tokens of each sequence, prompt included, then over sequences.  No layer above ``layer`` (the first is
    0) is run, and u is drawn from ``seed``.

    Hand-worked: D = 1 makes u = 1; activations 3 and 5 with c = 4 give (1 + 1) / 2 = 1.

    Li et al. 2024 (WMDP), eq. 1, arXiv:2403.03218.
    """
    h = x.hidden(layer)  # (M, D)
    u = torch.rand(h.shape[1], generator=torch.Generator().manual_seed(seed))  # (D,)
    target = to_device(steering_coefficient * (u / u.norm()), h.device).to(h.dtype)
    return x.real_mean((h - target).square().mean(1))


def activation_matching(x: ForwardPass, *, layer: int) -> Tensor:
    r"""Keep the activations of the retain texts where the reference has them (RMU's retain loss).

    .. math:: \mathbb{E}\,\tfrac{1}{|x|}\sum_t \tfrac{1}{D}\bigl\|h^{(\ell)}_t - h^{(\ell),\mathrm{ref}}_t\bigr\|^2

    Over the real tokens of each sequence, prompt included, then over sequences.

    Hand-worked: activations (1, 2) against (1, 4) of one token give (0 + 4) / 2 = 2.

    Li et al. 2024 (WMDP), eq. 2, arXiv:2403.03218.
    """
    return x.real_mean((x.hidden(layer) - x.reference.hidden(layer)).square().mean(1))


def kl(x: ForwardPass) -> Tensor:
    r"""Stay where the reference is: forward KL divergence at the labelled tokens.

    .. math:: \tfrac{1}{\sum_i|y_i|}\sum_{i,t} \mathrm{KL}\bigl(
        \pi_{\mathrm{ref}}(\cdot\mid x_i,y_{i,<t})\,\|\,\pi_\theta(\cdot\mid x_i,y_{i,<t})\bigr)

    Published code averages over prompt and padding too; here those positions do not exist.

    Hand-worked: p_ref = (1/2, 1/2) and p = (1/4, 3/4) give ½ ln 2 + ½ ln ⅔ = 0.1438.

    Maini et al. 2024 (KL minimisation baseline), arXiv:2401.06121.
    """
    return x.token_mean(kernels.kl_divergence(x.logits, x.reference.logits))


def js(x: ForwardPass) -> Tensor:
    r"""Stay where the reference is, bounded: Jensen-Shannon divergence at the labelled tokens.

    .. math:: \tfrac{1}{\sum_i|y_i|}\sum_{i,t} \mathrm{JS}\bigl(
        \pi_{\mathrm{ref}}(\cdot\mid x_i,y_{i,<t}),\,\pi_\theta(\cdot\mid x_i,y_{i,<t})\bigr), \qquad
        \mathrm{JS}(p, q) = \tfrac12\mathrm{KL}(p\|\tfrac{p+q}2) + \tfrac12\mathrm{KL}(q\|\tfrac{p+q}2)

    Between 0 and ln 2 a token, whatever the model does.

    Hand-worked: p_ref = (1, 0) and p = (0, 1) give ln 2; p_ref = (1/2, 1/2) and p = (1/4, 3/4) give
    ½ (½ ln 4/3 + ½ ln 4/5) + ½ (¼ ln 2/3 + ¾ ln 6/5) = 0.0338.

    Singh et al. 2025 (JensUn's retain loss), arXiv:2509.02820.
    """
    return x.token_mean(kernels.js_divergence(x.logits, x.reference.logits))


@not_monotone
def wga(x: ForwardPass, *, beta: float = 1.0) -> Tensor:
    r"""Weighted gradient ascent: tokens that are forgotten already are pushed less.

    .. math:: \tfrac{1}{\sum_i|y_i|}\sum_{i,t} \mathrm{sg}\bigl[p_{i,t}^{\,\beta}\bigr] \log p_{i,t}, \qquad
        p_{i,t} = \pi_\theta(y_{i,t}\mid x_i, y_{i,<t})

    sg is a constant to the gradient.  β = 0 is gradient ascent; with β > 0 the loss is at least -1/(eβ).

    Hand-worked: β = 1 and two tokens with probability 1/2 and 1/8 give -(½ ln 2 + ⅛ ln 8) / 2 = -0.3033.

    Wang et al. 2025, arXiv:2502.19301.
    """
    return x.token_mean((beta * x.token_logp).exp().detach() * x.token_logp)


@not_monotone
def satimp(x: ForwardPass, *, beta_saturation: float = 5.0, beta_importance: float = 1.0) -> Tensor:
    r"""Gradient ascent weighted by saturation (not yet forgotten) and importance (not yet certain).

    .. math:: \tfrac{1}{\sum_i|y_i|}\sum_{i,t}
        \mathrm{sg}\bigl[p_{i,t}^{\,\beta_1} (1 - p_{i,t})^{\beta_2}\bigr] \log p_{i,t}

    ``beta_saturation`` is the paper's β₁, ``beta_importance`` its β₂; β₂ = 0 is :func:`wga`.  Where a token is certain
    (p = 1) its weight is 0, and so is its gradient.

    Hand-worked: β₁ = 5, β₂ = 1 and a token with probability 1/2 give -ln 2 / 64 = -0.0108.

    Yang et al. 2025, arXiv:2505.11953.
    """
    p = x.token_logp.detach().exp()
    return x.token_mean(p**beta_saturation * (1 - p) ** beta_importance * x.token_logp)


def undial(x: ForwardPass, *, beta: float = 10.0) -> Tensor:
    r"""Self-distillation on adjusted logits: the reference's distribution with the forget token's logit lowered by β.

    .. math:: \tfrac{1}{\sum_i|y_i|}\sum_{i,t} \mathrm{KL}\bigl(
        \mathrm{softmax}(z^{\mathrm{ref}}_{i,t} - \beta\,e_{y_{i,t}}) \,\|\, \mathrm{softmax}(z_{i,t})\bigr)

    The paper writes the cross-entropy, which is this and the target's entropy: a constant, so gradients agree and the
    least value here is 0.  Public code averages over prompt and padding too, and at positions without a label lowers
    the logit of token V - 100; such positions do not exist here.

    Hand-worked: reference logits (10, 0) with the label 0 and β = 10 make the target (1/2, 1/2); p = (1/4, 3/4) gives
    ½ ln 2 + ½ ln ⅔ = 0.1438.

    Dong et al. 2024, arXiv:2402.10052.
    """
    reference = x.reference.logits
    lowered = reference.scatter_add(1, x.labels.unsqueeze(1), torch.full_like(reference[:, :1], -beta))
    return x.token_mean(kernels.kl_divergence(x.logits, lowered))


def ce_u(x: ForwardPass, *, ignore_first: int = 1) -> Tensor:
    r"""Cross-entropy unlearning: distil the model's own distribution with the forget token left out.

    .. math:: -\tfrac{1}{\sum_i|y_i|}\sum_i \sum_{t > n} \log\bigl(1 - p_{i,t}\bigr)

    The paper writes the cross-entropy of the model against q = softmax(z) with :math:`z_y = -\infty`, held constant.  As
    :math:`\mathrm{KL}(q\|p) = -\log(1-p_y)` has the same gradient, :math:`p - q`, CE-U is unlikelihood training; what
    is logged differs by the entropy of q.  ``ignore_first`` is n, the answer tokens at the start that are left alone (1
    in the public code); they still count in the mean, so it is the same however a step is cut.

    Hand-worked: a second token with probability 3/4 gives ln 4, over two tokens 0.6931.

    Yang 2025, arXiv:2503.01224; unlikelihood: Welleck et al. 2020, arXiv:1908.04319.
    """
    per_token = kernels.unlikelihood(x.logits, x.labels)
    return x.token_mean(per_token * (_place(x) >= ignore_first))


Divergence = Literal["total_variation", "kl", "jensen_shannon", "pearson"]
# name -> (g*, f* ∘ g*): what the template's and the forget answer's probability go through.
DIVERGENCES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "total_variation": (lambda v: v.tanh() / 2, lambda v: v.tanh() / 2),
    "kl": (lambda v: v, lambda v: (v - 1).exp()),
    "jensen_shannon": (lambda v: math.log(2) - F.softplus(-v), lambda v: F.softplus(v) - math.log(2)),
    "pearson": (lambda v: v, lambda v: v**2 / 4 + v),
}


def flat(x: ForwardPass, alternate: ForwardPass, *, divergence: Divergence = "total_variation") -> Tensor:
    r"""Loss adjustment on forget data only: drive a template answer y' and the forget answer y apart in an f-divergence.

    .. math:: \mathbb{E}\bigl[-g^*(P(y'|x)) + f^*(g^*(P(y|x)))\bigr], \qquad
        P(y|x) = \tfrac{1}{|y|}\sum_t \pi_\theta(y_t\mid x, y_{<t})

    The negated variational form of the divergence, per sequence; bounded, since P is between 0 and 1.

    ================  ========================  ==============
    divergence        g*(v)                     f*(u)
    ================  ========================  ==============
    total_variation   tanh(v) / 2               u
    kl                v                         exp(u - 1)
    jensen_shannon    ln 2 - ln(1 + exp(-v))    -ln(2 - exp u)
    pearson           v                         u² / 4 + u
    ================  ========================  ==============

    Public code takes P over prompt and padding too, where it counts 0, and its mean over the batch before g*.

    Hand-worked: P(y') = 1/2 and P(y) = 1/4 give, in the table's order, -0.1086, -0.0276, -0.0863 and -0.2344.

    Wang et al. 2024, arXiv:2410.11143.
    """
    g, conjugate = DIVERGENCES[divergence]
    template, forget = (v.sequence_sum(v.token_logp.exp()) / v.lengths for v in (alternate, x))  # (B,), (B,)
    return x.sequence_mean(conjugate(forget) - g(template))


def jensun(x: ForwardPass, alternate: ForwardPass) -> Tensor:
    r"""Bounded Jensen-Shannon unlearning: at the forget answer's positions, say the tokens of a refusal instead.

    .. math:: \tfrac{1}{\sum_i|y_i|}\sum_{i,t} \mathrm{JS}\bigl(
        \pi_\theta(\cdot\mid x_i,y_{i,<t}),\,e_{r_t}\bigr)
        = \ln 2 + \tfrac12\bigl[q\ln q - (1+q)\ln(1+q)\bigr], \quad q = \pi_\theta(r_t\mid x_i,y_{i,<t})

    :math:`e_{r_t}` is all on one token, so one probability is enough.  r is the refusal (the labels of ``alternate``,
    which is not run), repeated until the answer's end; its end-of-turn token belongs to it here.  Public code puts a mass
    of 1 on each of the refusal's tokens at every position, prompt and padding too, which is no distribution.
    Between 0 (it refuses) and ln 2; its gradient vanishes where the refusal is impossible.

    Hand-worked: q = 1 gives 0, q = 0 gives ln 2, q = 1/3 gives 0.3183.

    Singh et al. 2025, arXiv:2509.02820.
    """
    starts = alternate.lengths.cumsum(0) - alternate.lengths  # (B,)
    target = alternate.labels[starts[x.sequence] + _place(x) % alternate.lengths[x.sequence]]  # (N,)
    logq = kernels.token_logp(x.logits, target)
    q = logq.exp()
    return x.token_mean(math.log(2) + (q * logq - (1 + q) * q.log1p()) / 2)


def _place(x: ForwardPass) -> Tensor:
    """(N,) which labelled token of its sequence a token is, from 0."""
    starts = x.lengths.cumsum(0) - x.lengths  # (B,)
    return torch.arange(len(x.labels), device=x.labels.device) - starts[x.sequence]
