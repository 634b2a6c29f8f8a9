"""Gradients in lists, one entry a parameter: their Gramian, and their weighted sum written where the optimizer reads it.

Under FSDP2 gradients are DTensors.  Inner products are of local shards, summed over the processes in one all-reduce of the
m × m numbers, and the weighted sum is written shard by shard: no gradient is ever whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from expunge.forward.family import is_sharded, local, reshard

Meshes = tuple[tuple[Any, int], ...]  # (device mesh, dimension) over which a tensor is cut


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of ``model`` that train; of a sharded model the shards.

    Each backward pass of a sharded model is reduced into the shards at once, accumulating or not: FSDP2 has one place for
    gradients that it keeps whole, and objectives have gradients of their own.
    """
    if is_sharded(model):
        model.set_requires_gradient_sync(True)  # type: ignore[operator]
        reshard(model)
    return [p for p in model.parameters() if p.requires_grad]


def gramian(grads: list[list[Tensor | None]]) -> Tensor:
    """m lists of gradients (None where a parameter has none) -> (m, m) inner products over all parameters, in fp32.

    Sharded over processes, all of them get the same numbers.
    """
    m = len(grads)
    device = next((g.device for gs in grads for g in gs if g is not None), torch.device("cpu"))
    sums = _products(grads, device)
    total = torch.zeros(m, m, dtype=torch.float64, device=device)
    for cut, products in sums.items():
        total += _over_processes(products, cut)
    upper = total.float()
    return upper + upper.triu(1).T


def _products(grads: list[list[Tensor | None]], device: torch.device) -> dict[Meshes, Tensor]:
    """The upper triangle (m, m) of the inner products of local shards in fp64, for each way that gradients are cut."""
    m = len(grads)
    found: dict[Meshes, list[list[list[Tensor]]]] = {}
    for gs in zip(*grads, strict=True):
        cut = next((_cut(g) for g in gs if g is not None), ())
        rows = found.setdefault(cut, [[[] for _ in range(m)] for _ in range(m)])
        flat = [None if g is None else local(g).flatten().float() for g in gs]
        for i, a in enumerate(flat):
            for j, b in enumerate(flat[i:], i):
                if a is not None and b is not None:
                    rows[i][j].append(torch.dot(a, b))
    zero = torch.zeros((), dtype=torch.float64, device=device)
    return {
        cut: torch.stack(
            [torch.stack([torch.stack(dots).double().sum() if dots else zero for dots in row]) for row in rows]
        )
        for cut, rows in found.items()
    }


def _cut(tensor: Tensor) -> Meshes:
    """Over which dimensions of which mesh of processes ``tensor`` is cut; () for one that every process holds whole."""
    placements = getattr(tensor, "placements", ())
    return tuple((tensor.device_mesh, i) for i, placement in enumerate(placements) if placement.is_shard())  # type: ignore[attr-defined]


def _over_processes(values: Tensor, cut: Meshes) -> Tensor:
    """The sum of ``values`` over the processes that hold the other shards."""
    for mesh, i in cut:
        torch.distributed.all_reduce(values, group=mesh.get_group(i))
    return values


@torch.no_grad()
def write_combined(params: list[nn.Parameter], grads: list[list[Tensor | None]], weights: Tensor) -> None:
    """``p.grad = Σ_k w_k g_k``, in place in the first buffer that exists: no further copy."""
    for p, *gs in zip(params, *grads, strict=True):
        out: Tensor | None = None
        for g, w in zip(gs, weights, strict=True):
            if g is None:
                continue
            part, w = local(g), w.to(g.dtype)
            if out is None:
                out = g
                part.mul_(w)
            else:
                local(out).addcmul_(part, w)
        p.grad = out


def gram_facts(gram: Tensor, names: list[str]) -> dict[str, Tensor]:
    """The gradients' norms, and the cosine of the first two (0 where one of them is zero)."""
    norms = gram.diagonal().clamp(min=0).sqrt()
    facts = {f"norm/{name}": norms[k] for k, name in enumerate(names)}
    if len(names) > 1:
        facts["cosine"] = gram[0, 1] / (norms[0] * norms[1]).clamp(min=1e-30)
    return facts
