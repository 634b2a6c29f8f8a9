"""Weights that are changed for a while: whatever happens meanwhile, the model is left as it was, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InputError
from expunge.models.quantize import is_quantized


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Within it, in evaluation mode, weights, gradients and what trains may change; afterwards all is as before.

    What is put back are the tensors themselves: a weight that is changed in place must be replaced by a copy first, as
    :func:`replaced` and :func:`trainable_copies` do.
    """
    before = [(p, p.data, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        with evaluated(model):
            yield
    finally:
        for p, data, requires_grad, grad in before:
            p.grad = None  # of another number format, perhaps
            if p.data_ptr() != data.data_ptr():
                p.data = data
            p.requires_grad_(requires_grad)
            p.grad = grad


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Within it ``model`` is in evaluation mode; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def replaced(weights: dict[str, nn.Parameter], change: Callable[[str, Tensor], Tensor]) -> None:
    """Put ``change(name, weight)``, computed in fp32, in place of each of ``weights``; the old tensor is not written to."""
    with torch.no_grad():
        for name, p in weights.items():
            p.data = change(name, p.data.float()).to(p.dtype)


def trainable_copies(model: nn.Module) -> None:
    """All weights of ``model`` as copies in fp32, to be trained: in bfloat16 most of a small step would be lost.

    Raises InputError where weights are held in integers.
    """
    refuse_quantized(model)
    for p in model.parameters():
        p.data = p.data.to(torch.float32, copy=True)
        p.requires_grad_(True)


def matrices(model: Any) -> dict[str, nn.Parameter]:
    """The weights that tools for compression change: of the linear layers but the output embedding, and of experts that
    are one tensor.  Raises InputError where they are held in integers already.
    """
    from transformers.pytorch_utils import Conv1D

    refuse_quantized(model)
    ends = {
        id(p) for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end for p in end.parameters()
    }
    linear = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and isinstance(module.weight, nn.Parameter)
        and id(module.weight) not in ends
    }
    experts = {n: p for n, p in model.named_parameters() if p.ndim == 3 and not n.endswith(".weight")}
    return linear | experts


def held_quantized(model: nn.Module) -> bool:
    """Whether weights of ``model`` are held in integers."""
    return any(is_quantized(p) for p in model.parameters())


def refuse_quantized(model: nn.Module) -> None:
    """Raise InputError where weights of ``model`` are held in integers."""
    if held_quantized(model):
        raise InputError(
            "the weights of the model are held in 4 or 8 bits, which this attack cannot change; leave --quantize out"
        )
