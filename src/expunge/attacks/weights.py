r"""Attacks on weights that need no training: what a mask that is thin, or smaller than a rounding step, does not survive.

Unlearning that moves each weight by less than half a step of the later quantisation is undone by it (Zhang et al. 2024,
arXiv:2410.16454: 21 % of what was forgotten is known before 4 bits, 83 % after).  Computed in plain torch, on any
device, without bitsandbytes; embeddings and biases stay, as in common tools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from expunge.attacks.attack import Attack, Measure, Point, Subject
from expunge.attacks.restore import matrices, replaced, restored
from expunge.errors import InputError

SHARES = (0.1, 0.3, 0.5)  # of the weights of each layer, which pruning sets to 0
WEIGHTS = (0.1, 0.25, 0.5)  # of the target in a merge
BLOCK = 64  # weights that share a scale in NF4
# Quantiles of the normal distribution, scaled to [-1, 1], with an exact 0: Dettmers et al. 2023, appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


# -- of one matrix --------------------------------------------------------------------------------------------------------
def pruned(weight: Tensor, share: float) -> Tensor:
    """``weight`` with the ``share`` of its entries that are nearest to 0 set to 0: ⌊share · n⌋ of n.

    >>> pruned(torch.tensor([[0.1, -2.0], [0.3, -0.2]]), 0.5).tolist()
    [[0.0, -2.0], [0.30000001192092896, 0.0]]
    """
    zeros = int(share * weight.numel())
    out = weight.flatten().clone()
    out[out.abs().topk(zeros, largest=False, sorted=False).indices] = 0
    return out.view_as(weight)


def int8(weight: Tensor) -> Tensor:
    r"""``weight`` (…, out, in) after rounding to 8 bits, one scale a row: :math:`s\,\mathrm{round}(W / s)`,
    :math:`s = \max|W| / 127`.

    As the weights of LLM.int8(), whose inputs are not rounded here: Dettmers et al. 2022, arXiv:2208.07339.

    >>> int8(torch.tensor([[127.0, 1.4, -0.6]])).tolist()
    [[127.0, 1.0, -1.0]]
    """
    scale = weight.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (weight / scale).round() * scale, weight)


def nf4(weight: Tensor, block: int = BLOCK) -> Tensor:
    r"""``weight`` after rounding to the nearest of the 16 levels of NormalFloat, times the largest magnitude of its block.

    Blocks are of ``block`` neighbouring weights in memory, the last one shorter, as in bitsandbytes; the scales are
    kept in fp32 (no double quantisation).  Dettmers et al. 2023, arXiv:2305.14314.

    >>> nf4(torch.tensor([[2.0, 0.1, -1.5]])).tolist()
    [[2.0, 0.15916059911251068, -1.3923856019973755]]
    """
    flat = nn.functional.pad(weight.flatten(), (0, -weight.numel() % block)).view(-1, block)
    levels = torch.tensor(NF4, dtype=weight.dtype, device=weight.device)
    scale = flat.abs().amax(1, keepdim=True)
    shares = torch.where(scale > 0, flat / scale, flat)
    nearest = levels[torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2)]
    return (nearest * scale).flatten()[: weight.numel()].view_as(weight)


def by_rows(change: Callable[[Tensor], Tensor], model: nn.Module) -> Callable[[str, Tensor], Tensor]:
    """``change`` for matrices (out, in), as one for the weights of ``model`` by name: GPT-2 stores (in, out)."""
    from transformers.pytorch_utils import Conv1D

    turned = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    return lambda name, weight: change(weight.T.contiguous()).T.contiguous() if name in turned else change(weight)


# -- of a model -----------------------------------------------------------------------------------------------------------
def prune(subject: Subject, measure: Measure, *, shares: Sequence[float] = SHARES) -> list[Point]:
    """The model after pruning by magnitude, the same share of each layer; see :func:`pruned`."""
    points = []
    for share in shares:
        with restored(subject.model):
            replaced(matrices(subject.model), lambda _, weight, share=share: pruned(weight, share))  # type: ignore[misc]
            points.append(Point(share, f"{share:.0%} of the weights at 0", measure(subject.model)))
    return points


def quantise(subject: Subject, measure: Measure) -> list[Point]:
    """The model after rounding to 8 and to 4 bits; the strength is 1 / bits.  See :func:`int8` and :func:`nf4`."""
    points = []
    for bits, label, change in ((8, "int8", int8), (4, "NF4", nf4)):
        with restored(subject.model):
            replaced(matrices(subject.model), by_rows(change, subject.model))
            points.append(Point(1 / bits, label, measure(subject.model)))
    return points


def merge(subject: Subject, measure: Measure, *, weights: Sequence[float] = WEIGHTS) -> list[Point]:
    r"""The model merged back towards the target: :math:`\theta_u + \alpha\,(\theta_t - \theta_u)` for each α of ``weights``.

    At α = 1 it is the target, so what counts is how early the knowledge is back, against the same on a control.
    Raises InputError where the two have other weights.
    """
    from_target = dict(subject.target.named_parameters())
    own = dict(subject.model.named_parameters())
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in from_target.items()}:
        raise InputError("the model cannot be merged with its target: their weights differ in name or shape")
    points = []
    for alpha in weights:
        with restored(subject.model):
            replaced(own, partial(_towards, from_target, alpha))
            points.append(Point(alpha, f"{alpha:.0%} of the target", measure(subject.model)))
    return points


def _towards(target: dict[str, nn.Parameter], alpha: float, name: str, weight: Tensor) -> Tensor:
    return weight.lerp(target[name].data.to(weight), alpha)


ATTACKS = (
    Attack("pruning", "weights", "the smallest weights of each layer set to 0", prune, unit="share of weights"),
    Attack("quantisation", "weights", "weights rounded to 8 and to 4 bits", quantise, unit="1 / bits"),
    Attack(
        "merging",
        "weights",
        "weights moved back towards the target's",
        merge,
        unit="share of the target",
        needs=("target",),
    ),
)
