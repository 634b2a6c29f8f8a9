r"""Closed-form forward and backward of the reductions over the vocabulary.

Autograd would keep an (N, V) log-softmax, and its gradient beside it.  These keep the logits (or nothing), work
through rows or through the vocabulary in chunks, and compute in fp32.  N labelled tokens, V vocabulary, D hidden.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1 << 22  # elements of the largest temporary: 16 MiB in fp32


def token_logp(logits: Tensor, labels: Tensor) -> Tensor:
    r"""(N, V), (N,) -> (N,): :math:`z_y - \log\sum_k e^{z_k}`; gradient :math:`e_y - \mathrm{softmax}(z)`."""
    result: Tensor = _TokenLogp.apply(logits, labels)  # type: ignore[no-untyped-call]
    return result


def entropy(logits: Tensor) -> Tensor:
    r"""(N, V) -> (N,): :math:`H = -\sum_k p_k \log p_k` in nats; gradient :math:`-p_k (\log p_k + H)`."""
    result: Tensor = _Entropy.apply(logits)  # type: ignore[no-untyped-call]
    return result


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    r"""(N, V), (N, V) -> (N,): :math:`\mathrm{KL}(p_{\mathrm{ref}} \| p)`; gradient :math:`p - p_{\mathrm{ref}}`."""
    result: Tensor = _KLDivergence.apply(logits, reference)  # type: ignore[no-untyped-call]
    return result


def js_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    r"""(N, V), (N, V) -> (N,): :math:`\mathrm{JS}(p_{\mathrm{ref}}, p)`, between 0 and ln 2.

    With m the mean of the two, the gradient is :math:`p \odot (d - p^\top d)`, :math:`d = \tfrac12 \log(p/m)`.
    """
    result: Tensor = _JSDivergence.apply(logits, reference)  # type: ignore[no-untyped-call]
    return result


def unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    r"""(N, V), (N,) -> (N,): :math:`-\log(1 - p_y)`, exact where :math:`p_y` rounds to 1.

    It is :math:`\mathrm{softplus}(a)` of the log-odds :math:`a = z_y - \log\sum_{k \ne y} e^{z_k}`; with q the softmax
    without y the gradient is :math:`p_y (e_y - q)`.
    """
    result: Tensor = _Unlikelihood.apply(logits, labels)  # type: ignore[no-untyped-call]
    return result


def margin_of_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""(N, D), (V, D), (V,) -> (N,): :math:`\max_k z_k - \mathrm{mean}_k z_k` of ``z = hidden @ weight.T + bias``.

    Never stores z.  With :math:`k^*` the argmax and :math:`\bar w` the mean row,
    :math:`\partial m/\partial h = w_{k^*} - \bar w`; at a tie the first largest logit takes the gradient.
    """
    result: Tensor = _MarginOfLinear.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
    return result


def margin_of_logits(logits: Tensor) -> Tensor:
    """(N, V) -> (N,): the same of logits that exist."""
    logits = logits.float()
    return logits.max(-1).values - logits.mean(-1)


def _rows(vocabulary: int) -> int:
    return max(1, CHUNK // vocabulary)


class _TokenLogp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        rows = logits.split(_rows(logits.shape[-1]))
        lse = torch.cat([chunk.float().logsumexp(-1) for chunk in rows]) if len(logits) else logits.new_zeros(0)
        ctx.save_for_backward(logits, labels, lse)
        return logits.gather(1, labels.unsqueeze(1)).squeeze(1).float() - lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, labels, lse = ctx.saved_tensors
        out = torch.empty_like(logits)
        step = _rows(logits.shape[-1])
        for i in range(0, len(logits), step):
            part = slice(i, i + step)
            p = (logits[part].float() - lse[part, None]).exp_()
            out[part] = p.mul_(-grad[part, None])
        out.scatter_add_(1, labels.unsqueeze(1), grad.unsqueeze(1).to(out.dtype))
        return out, None


class _Entropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        parts = []
        for chunk in logits.split(_rows(logits.shape[-1])):
            log_p = chunk.float().log_softmax(-1)
            parts.append(-(log_p.exp() * log_p).sum(-1))
        out = torch.cat(parts) if len(logits) else logits.new_zeros(0)
        ctx.save_for_backward(logits, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        logits, entropy = ctx.saved_tensors
        out = torch.empty_like(logits)
        step = _rows(logits.shape[-1])
        for i in range(0, len(logits), step):
            part = slice(i, i + step)
            log_p = logits[part].float().log_softmax(-1)
            out[part] = log_p.exp().mul_(log_p + entropy[part, None]).mul_(-grad[part, None])
        return out


class _KLDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, reference: Tensor) -> Tensor:
        step = _rows(logits.shape[-1])
        parts = []
        for i in range(0, len(logits), step):
            ref = reference[i : i + step].float().log_softmax(-1)
            log_p = logits[i : i + step].float().log_softmax(-1)
            parts.append((ref.exp() * (ref - log_p)).sum(-1))
        ctx.save_for_backward(logits, reference)
        return torch.cat(parts) if parts else logits.new_zeros(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, reference = ctx.saved_tensors
        out = torch.empty_like(logits)
        step = _rows(logits.shape[-1])
        for i in range(0, len(logits), step):
            part = slice(i, i + step)
            gap = logits[part].float().softmax(-1) - reference[part].float().softmax(-1)
            out[part] = gap.mul_(grad[part, None])
        return out, None


class _JSDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, reference: Tensor) -> Tensor:
        step = _rows(logits.shape[-1])
        parts = []
        for i in range(0, len(logits), step):
            ref = reference[i : i + step].float().log_softmax(-1)
            log_p = logits[i : i + step].float().log_softmax(-1)
            log_m = torch.logaddexp(ref, log_p) - math.log(2)
            parts.append((ref.exp() * (ref - log_m) + log_p.exp() * (log_p - log_m)).sum(-1) / 2)
        ctx.save_for_backward(logits, reference)
        return torch.cat(parts) if parts else logits.new_zeros(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, reference = ctx.saved_tensors
        out = torch.empty_like(logits)
        step = _rows(logits.shape[-1])
        for i in range(0, len(logits), step):
            part = slice(i, i + step)
            log_p = logits[part].float().log_softmax(-1)
            d = (log_p - torch.logaddexp(reference[part].float().log_softmax(-1), log_p) + math.log(2)) / 2
            p = log_p.exp_()
            out[part] = p * (d - (p * d).sum(-1, keepdim=True)) * grad[part, None]
        return out, None


class _Unlikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        label = labels.unsqueeze(1)
        step = _rows(logits.shape[-1])
        parts = [
            logits[i : i + step].float().scatter(1, label[i : i + step], -torch.inf).logsumexp(-1)
            for i in range(0, len(logits), step)
        ]
        rest = torch.cat(parts) if parts else logits.new_zeros(0)  # log-sum-exp of the others
        odds = logits.gather(1, label).squeeze(1).float() - rest
        ctx.save_for_backward(logits, labels, rest, odds)
        return F.softplus(odds)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, labels, rest, odds = ctx.saved_tensors
        scale = grad * odds.sigmoid()
        out = torch.empty_like(logits)
        step = _rows(logits.shape[-1])
        for i in range(0, len(logits), step):
            part = slice(i, i + step)
            q = (logits[part].float() - rest[part, None]).exp_()
            out[part] = q.mul_(-scale[part, None])
        out.scatter_(1, labels.unsqueeze(1), scale.unsqueeze(1).to(out.dtype))
        return out, None


class _MarginOfLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n, vocabulary = len(hidden), len(weight)
        best = hidden.new_full((n,), -torch.inf, dtype=torch.float32)
        arg = torch.zeros(n, dtype=torch.long, device=hidden.device)
        step = max(1, CHUNK // max(n, 1))
        for i in range(0, vocabulary, step):
            z = F.linear(hidden, weight[i : i + step], None if bias is None else bias[i : i + step])
            value, index = z.float().max(-1)
            better = value > best
            best = torch.where(better, value, best)
            arg = torch.where(better, index + i, arg)
        mean_row = weight.float().mean(0)  # (D,)
        mean = hidden.float() @ mean_row
        if bias is not None:
            mean = mean + bias.float().mean()
        ctx.save_for_backward(hidden, weight, arg, mean_row)
        ctx.biased = bias is not None
        return best - mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        hidden, weight, arg, mean_row = ctx.saved_tensors
        to_hidden = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_hidden = (grad[:, None] * (weight[arg].float() - mean_row)).to(hidden.dtype)
        if ctx.needs_input_grad[1]:
            scaled = grad[:, None] * hidden.float()  # (N, D)
            dense = (scaled.sum(0) / -len(weight)).expand(weight.shape).contiguous()
            to_weight = dense.index_add_(0, arg, scaled).to(weight.dtype)
        if ctx.biased and ctx.needs_input_grad[2]:
            to_bias = (grad.sum() / -len(weight)).expand(len(weight)).contiguous().index_add_(0, arg, grad)
            to_bias = to_bias.to(weight.dtype)
        return to_hidden, to_weight, to_bias
