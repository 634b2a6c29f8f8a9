r"""The norm of a text's loss gradient, for membership inference; no gradient of the whole model is ever held.

The gradient of a linear layer's weight is :math:`d^\top a`, of its inputs a (T, in) and the loss gradient d (T, out) of its
outputs.  Its norm needs less than that product: :math:`\lVert d^\top a \rVert^2 = \sum_{st} (a a^\top)_{st} (d d^\top)_{st}`
(Goodfellow 2015, arXiv:1510.01799).  An embedding's gradient has rows for the text's own tokens only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.forward.view import logits_at

CLOSE = 1e-3  # relative difference between a norm from factors and one of the gradient itself
CANCELS = 1e-2  # a sum that is a smaller part of its terms than this has lost too many digits

Text = tuple[Sequence[int], Sequence[int]]  # the tokens of a prompt, and those after it
Measure = Callable[[nn.Module, Sequence[int], Sequence[int]], float]
Use = tuple[nn.Module, Tensor, Tensor]  # a layer, its input, and the loss gradient of its output


def fastest_norm(model: nn.Module, texts: Sequence[Text]) -> Measure:
    """The function that measures gradients: from factors if that agrees with the gradients on the shortest text."""
    shortest = min((t for t in texts if t[1]), key=lambda t: len(t[0]) + len(t[1]), default=None)
    if shortest is None:
        return grad_norm
    try:
        factors = factored_norm(model, *shortest)
    except (RuntimeError, TypeError, IndexError):  # a layer is called, or its outputs are changed, in an unusual way
        return grad_norm
    direct = grad_norm(model, *shortest)
    return factored_norm if abs(factors - direct) <= CLOSE * direct else grad_norm


def grad_norm(model: nn.Module, prompt: Sequence[int], text: Sequence[int]) -> float:
    r"""Mean over parameter tensors of the gradient norm of the mean NLL of ``text`` after ``prompt`` (token ids).

    .. math:: \tfrac{1}{|P|} \sum_{p \in P} \Bigl\lVert \nabla_p \tfrac1T \sum_t -\log\pi(y_t \mid x, y_{<t}) \Bigr\rVert_2

    Each tensor's gradient is measured and freed as soon as it is computed, so the memory is that of one forward pass and the
    largest tensor.  Of all parameters, whether or not they train; a text without a token has the norm 0.  See
    :func:`expunge.evaluation.metrics.privacy.grad_norm_score`.
    """
    return _mean_norm(model, prompt, text, {})


def factored_norm(model: nn.Module, prompt: Sequence[int], text: Sequence[int]) -> float:
    """As :func:`grad_norm`, with linear layers and embeddings measured from their factors; :func:`way` checks that it holds.

    A weight's gradient is computed only if the text is so long that this is less work.
    """
    return _mean_norm(model, prompt, text, _factored(model))


def _mean_norm(
    model: nn.Module, prompt: Sequence[int], text: Sequence[int], factored: Mapping[Tensor, Sequence[nn.Module]]
) -> float:
    if not text:
        return 0.0
    weights = [p for p in model.parameters() if p.is_floating_point()]
    norms: list[Tensor] = []

    def measure(p: Tensor) -> None:
        assert p.grad is not None
        norms.append(p.grad.float().norm())
        p.grad = None

    ids = torch.tensor([[*prompt, *text]], device=weights[0].device)
    keep = torch.zeros_like(ids[:, :-1], dtype=torch.bool)
    keep[0, len(prompt) - 1 :] = True
    with ExitStack() as stack, torch.enable_grad():
        for p in weights:
            stack.callback(_restore, p, p.requires_grad, p.grad)
            p.grad = None
            p.requires_grad_(p not in factored)
            if p not in factored:
                stack.callback(p.register_post_accumulate_grad_hook(measure).remove)
        with _watched(factored, norms):
            logits, _ = logits_at(model, keep, input_ids=ids[:, :-1], use_cache=False)
            functional.cross_entropy(logits.float(), ids[0, len(prompt) :]).backward()
    return float(torch.stack(norms).sum() / len(weights))


def _restore(p: Tensor, trains: bool, gradient: Tensor | None) -> None:
    p.requires_grad_(trains)
    p.grad = gradient


def _factored(model: nn.Module) -> dict[Tensor, list[nn.Module]]:
    """The weights that only plain linear layers and embeddings use -> those modules."""
    holders: dict[Tensor, list[nn.Module]] = defaultdict(list)
    other_weights: set[Tensor] = set()
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if name == "weight" and _plain(module):
                holders[p].append(module)
            else:
                other_weights.add(p)
    return {p: modules for p, modules in holders.items() if p not in other_weights}


def _plain(module: nn.Module) -> bool:
    if type(module) is nn.Embedding:
        return not (module.max_norm or module.scale_grad_by_freq or module.sparse)
    return type(module) is nn.Linear


@contextmanager
def _watched(factored: Mapping[Tensor, Sequence[nn.Module]], norms: list[Tensor]) -> Iterator[None]:
    """Append to ``norms`` the norm of each of these weights' gradients as soon as all its uses are known."""
    calls: Counter[Tensor] = Counter()
    uses: dict[Tensor, list[Use]] = defaultdict(list)

    def called(p: Tensor, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        value = args[0] if args else kwargs["input"]
        if not out.requires_grad:  # no earlier parameter requires a gradient
            out.requires_grad_()
        calls[p] += 1
        out.register_hook(partial(returned, p, module, value.detach()))

    def returned(p: Tensor, module: nn.Module, value: Tensor, gradient: Tensor) -> None:
        uses[p].append((module, value, gradient))
        if len(uses[p]) == calls[p]:
            norms.append(_norm(uses.pop(p)))

    with ExitStack() as stack:
        for p, modules in factored.items():
            for module in modules:
                hook = partial(called, p)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True, prepend=True).remove)
        yield
        norms += map(_norm, uses.values())  # weights with calls that the loss does not depend on


def _norm(uses: Sequence[Use]) -> Tensor:
    """The norm of one weight's gradient, the sum over its ``uses``."""
    linear = [(_rows(value), _rows(gradient)) for module, value, gradient in uses if isinstance(module, nn.Linear)]
    looked_up = [_tokens(*use) for use in uses if isinstance(use[0], nn.Embedding)]
    if not looked_up:
        return _square(*_joined(linear)).sqrt()
    ids, gradients = _joined(looked_up)
    ids, inverse = ids.unique(return_inverse=True)
    rows = gradients.new_zeros(len(ids), gradients.shape[1]).index_add(0, inverse, gradients)
    square = rows.square().sum()
    if linear:
        a, d = _joined(linear)
        square = square + _square(a, d) + 2 * (d[:, ids].T @ a * rows).sum()
    return square.clamp(min=0).sqrt()


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(pairs) == 1:
        return pairs[0]
    inputs, gradients = zip(*pairs, strict=True)
    return torch.cat(inputs), torch.cat(gradients)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).float()


def _tokens(module: nn.Module, ids: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The ids (n,) that an embedding looked up, its padding left out as in torch, and the gradients (n, D) they get."""
    real = ids.flatten() != (-1 if module.padding_idx is None else module.padding_idx)
    return ids.flatten()[real], _rows(gradient)[real]


def _square(a: Tensor, d: Tensor) -> Tensor:
    """(T, in), (T, out) -> the squared norm of dᵀa (out, in), which is computed where that is less work, or more exact."""
    (tokens, fan_in), fan_out = a.shape, d.shape[1]
    if tokens * (fan_in + fan_out) < fan_in * fan_out:
        terms = (a @ a.T) * (d @ d.T)
        square = terms.sum()
        if square > CANCELS * terms.abs().sum():
            return square
    return (d.T @ a).square().sum()
