"""The kernels over the vocabulary on a device against the textbook formulas in float64 on the CPU, value and gradient.

The inputs are what they are in fp32 or bf16, and exact in float64.  ``‖ours - exact‖ ≤ t ‖exact‖``, t by where the
error comes from:

* computed in fp32: 1e-5; 2e-4 for KL and JS, which are what is left (0.05) of logarithms near -15;
* gradients in bf16, to which they are rounded (2⁻⁹ each): 5e-3;
* the margin of a bf16 head: 5e-3, for its logits are products rounded to bf16.  Each row of hidden states has one
  logit well above the others, as a model's that knows the answer: at a near tie rounding decides which token takes
  the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from expunge.forward import kernels
from perf.gpu.rows import Differs, Figures, Row

Inputs = Mapping[str, Tensor]
SIZES = {"large": (128, 128_256, 256), "small": (24, 1000, 64)}  # tokens, vocabulary, hidden size


def rows(device: torch.device, size: str = "large") -> Iterator[Row]:
    """``kernel/NAME/DTYPE``."""
    for name in KERNELS:
        for dtype in (torch.float32, torch.bfloat16):
            yield Row(
                f"kernel/{name}/{str(dtype).removeprefix('torch.')}", partial(compared, name, dtype, device, size)
            )


def inputs(size: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Logits as large as a model's, a reference near them, labels, hidden states and a head; drawn on the CPU."""
    tokens, vocabulary, width = SIZES[size]
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(tokens, vocabulary, generator=g)
    labels = torch.randint(vocabulary, (tokens,), generator=g)
    head = torch.randn(vocabulary, width, generator=g) / width**0.5
    made = {
        "logits": logits,
        "reference": logits + 0.3 * torch.randn(tokens, vocabulary, generator=g),
        "hidden": torch.randn(tokens, width, generator=g) + 12 * head[labels],
        "head": head,
    }
    return {name: t.to(dtype) for name, t in made.items()} | {"labels": labels}


def _token_logp(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]


def _kl(logits: Tensor, reference: Tensor) -> Tensor:
    p, q = reference.log_softmax(-1), logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _js(logits: Tensor, reference: Tensor) -> Tensor:
    p, q = reference.softmax(-1), logits.softmax(-1)
    m = (p + q) / 2
    return ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2


def _unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    return -torch.log1p(-_token_logp(logits, labels).exp())


def _margin(hidden: Tensor, head: Tensor) -> Tensor:
    z = F.linear(hidden, head)
    return z.max(-1).values - z.mean(-1)


# name -> (the kernel, the textbook formula, the inputs in order, those that get a gradient)
KERNELS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[str, ...], tuple[str, ...]]] = {
    "token_logp": (kernels.token_logp, _token_logp, ("logits", "labels"), ("logits",)),
    "kl": (kernels.kl_divergence, _kl, ("logits", "reference"), ("logits",)),
    "js": (kernels.js_divergence, _js, ("logits", "reference"), ("logits",)),
    "unlikelihood": (kernels.unlikelihood, _unlikelihood, ("logits", "labels"), ("logits",)),
    "margin_of_linear": (kernels.margin_of_linear, _margin, ("hidden", "head"), ("hidden", "head")),
}


def evaluated(f: Callable[..., Tensor], given: Inputs, names: tuple[str, ...], leaves: tuple[str, ...]) -> list[Tensor]:
    """The values of ``f``, and the gradient of their weighted sum with respect to each of ``leaves``."""
    own = {n: given[n].detach().clone().requires_grad_(n in leaves) for n in names}
    value = f(*own.values())
    weight = torch.linspace(-1, 2, len(value), device=value.device, dtype=value.dtype)
    return [value, *torch.autograd.grad((value * weight).sum(), [own[n] for n in leaves])]


def compared(name: str, dtype: torch.dtype, device: torch.device, size: str) -> Figures:
    """A kernel on ``device`` beside its formula in float64; Differs outside of the tolerances above."""
    kernel, formula, names, leaves = KERNELS[name]
    given = inputs(size, dtype)
    ours = evaluated(kernel, {n: t.to(device) for n, t in given.items()}, names, leaves)
    exact = evaluated(formula, {n: t.double() if t.is_floating_point() else t for n, t in given.items()}, names, leaves)
    labels = ["value", *(f"gradient_{n}" for n in leaves)]
    found = {n: relative(a, b) for n, a, b in zip(labels, ours, exact, strict=True)}
    bounds = {n: tolerance(name, dtype, value=n == "value") for n in labels}
    if wrong := [n for n in labels if not found[n] <= bounds[n]]:
        n = wrong[0]
        raise Differs(f"{n} is {found[n]:.2e} from float64, at most {bounds[n]:.0e}", found)
    return found


def relative(ours: Tensor, exact: Tensor) -> float:
    """``‖ours - exact‖ / ‖exact‖`` in float64."""
    exact = exact.detach()
    return float((ours.detach().cpu().double() - exact).norm() / exact.norm())


def tolerance(name: str, dtype: torch.dtype, *, value: bool) -> float:
    """The largest relative distance allowed."""
    rounded = dtype == torch.bfloat16 and (name == "margin_of_linear" or not value)
    return 5e-3 if rounded else 2e-4 if name in ("kl", "js") else 1e-5
