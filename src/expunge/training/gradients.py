"""Gradients in lists, one entry a parameter: their Gramian, and their weighted sum written where the optimizer reads it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def gramian(grads: list[list[Tensor | None]]) -> Tensor:
    """m lists of gradients (None where a parameter has none) -> (m, m) inner products over all parameters, in fp32."""
    m = len(grads)
    rows: list[list[Tensor]] = [[torch.zeros(()) for _ in range(m)] for _ in range(m)]
    for i in range(m):
        for j in range(i, m):
            products = [
                torch.dot(a.flatten().float(), b.flatten().float())
                for a, b in zip(grads[i], grads[j], strict=True)
                if a is not None and b is not None
            ]
            total = torch.stack(products).double().sum().float() if products else torch.zeros(())
            rows[i][j] = rows[j][i] = total
    device = next((g.device for gs in grads for g in gs if g is not None), torch.device("cpu"))
    return torch.stack([torch.stack([v.to(device) for v in row]) for row in rows])


def write_combined(params: list[nn.Parameter], grads: list[list[Tensor | None]], weights: Tensor) -> None:
    """``p.grad = Σ_k w_k g_k``, in place in the first buffer that exists: no further copy."""
    for p, *gs in zip(params, *grads, strict=True):
        out: Tensor | None = None
        for g, w in zip(gs, weights, strict=True):
            if g is None:
                continue
            w = w.to(g.dtype)
            out = g.mul_(w) if out is None else out.addcmul_(g, w)
        p.grad = out


def gram_facts(gram: Tensor, names: list[str]) -> dict[str, Tensor]:
    """The gradients' norms, and the cosine of the first two (0 where one of them is zero)."""
    norms = gram.diagonal().clamp(min=0).sqrt()
    facts = {f"norm/{name}": norms[k] for k, name in enumerate(names)}
    if len(names) > 1:
        facts["cosine"] = gram[0, 1] / (norms[0] * norms[1]).clamp(min=1e-30)
    return facts
