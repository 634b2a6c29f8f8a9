r"""Every published loss: one pure function, formula above code.

A loss takes one :class:`~expunge.forward.ForwardPass` per stream and returns a scalar to *minimise*.  Notation:
:math:`y` the answer, :math:`|y|` its labelled tokens, :math:`\pi_\theta` the model, :math:`\pi_{\mathrm{ref}}` the
frozen target model.  Means run over the whole optimizer step (``token_mean``, ``sequence_mean``), so cutting it into
micro-batches changes nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from expunge import kernels
from expunge.forward import ForwardPass


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
    target = steering_coefficient * (u / u.norm()).to(h)
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
