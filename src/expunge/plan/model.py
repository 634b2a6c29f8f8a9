"""A model as it will train, on the ``meta`` device: its configuration and no weights; and the sizes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge.errors import InputError
from expunge.forward.layers import decoder_layers, output_embedding
from expunge.method import Method
from expunge.models.check import error_text
from expunge.models.gguf import dequantised
from expunge.models.locate import adapter_base, resolve
from expunge.unlearning import train
from expunge.unlearning.settings import Recipe

# Bytes of a quantised weight: bitsandbytes' NF4 has a scale of 8 bits for 64 weights and one of 32 for 256 scales (double
# quantisation, arXiv:2305.14314); LLM.int8() has a scale a row.
QUANTISED = {"nf4": 0.5 + (1 + 4 / 256) / 64, "int8": 1.0}


@dataclass(frozen=True)
class Shape:
    """Numbers of a model's parameters, and bytes of them.

    ``frozen``, ``trained``: bytes of the weights while training; ``loaded``: of the model before it is given an adapter.
    ``largest_trained``: bytes of the largest tensor that trains; ``largest_frozen``: numbers in the largest frozen matrix.
    ``unit``, ``root``: numbers in the largest decoder layer, and in all that is in none; ``unit_trained``,
    ``root_trained``: those that train.  ``hidden``: bytes of a token's hidden state; ``head``: bytes of the output
    embedding where it trains, else 0.  ``layers``: how many; ``adapter``: whether factors train beside frozen weights.
    """

    parameters: int
    trained_parameters: int
    frozen: float
    trained: float
    loaded: float
    largest_trained: int
    largest_frozen: int
    unit: int
    root: int
    unit_trained: int
    root_trained: int
    hidden: int
    width: int
    head: int
    layers: int
    adapter: bool


def configuration(name: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of the model ``name``, of an adapter's base; a folder may hold config.json and nothing else."""
    from transformers import AutoConfig

    folder = Path(name).expanduser()
    bare = (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()
    if bare:
        place = str(folder)
    else:
        source = resolve(name)
        if source.kind == "adapter":
            source, _ = adapter_base(Path(source.location))
        place = str(dequantised(Path(source.location))) if source.kind == "gguf" else source.location
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:  # each configuration class raises its own errors
        raise InputError(f"{place}: the configuration cannot be read: {error_text(error)}") from error


def meta_model(settings: Recipe) -> Any:
    """The model of ``settings`` in the number format that it is loaded in, without weights."""
    from transformers import AutoModelForCausalLM

    config = configuration(settings.model, trust_remote_code=settings.trust_remote_code)
    options: dict[str, Any] = {"attn_implementation": settings.attn} if settings.attn else {}
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config,
                dtype=getattr(torch, settings.loaded),
                trust_remote_code=settings.trust_remote_code,
                **options,
            )
    except Exception as error:  # a model is built of its settings, each of which can fail in a way of its own
        raise InputError(
            f"{settings.model} is no causal language model that can be built: {error_text(error)}"
        ) from error


def fitted(method: Method, model: Any) -> Method:
    """``method`` with the values that it leaves to the model; one that is measured on the data changes no size, and is 1."""
    if isinstance(method.fit, partial) and method.fit.keywords.get("coefficient") == "auto":
        method = replace(method, fit=partial(method.fit, coefficient=1.0))
    return method.fit(method, model, []) if method.fit else method


def prepared(settings: Recipe, method: Method) -> tuple[Any, Method, int]:
    """(the model with what trains, the method fitted to it, bytes of the model as it is loaded)."""
    model = meta_model(settings)
    loaded = sum(p.numel() * p.element_size() for p in model.parameters())
    method = fitted(method, model)
    train.check_fit(model, settings, method)
    with torch.device("meta"):
        net = train.prepare(model, settings, method)
    return net, method, loaded


def shape_of(net: Any, loaded: float, quantize: str | None = None) -> Shape:
    """The sizes of ``net`` as :func:`prepared` gives it, its frozen linear layers quantised where ``quantize`` says so."""
    base = net.get_base_model() if hasattr(net, "get_base_model") else net
    stack = list(decoder_layers(base)[2])
    inside = {id(p) for layer in stack for p in layer.parameters()}
    units = [list(layer.parameters()) for layer in stack]
    parameters = list(net.parameters())
    root = [p for p in parameters if id(p) not in inside]
    quantised = _quantised(net, stack) if quantize else set()
    each = QUANTISED[quantize] if quantize else 0.0
    saved = sum(p.numel() * (p.element_size() - each) for p in parameters if id(p) in quantised)
    moving = [p for p in parameters if p.requires_grad]
    still = [p for p in parameters if not p.requires_grad]
    head = output_embedding(net)
    weight: Any = head.weight
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in moving),
        frozen=_bytes(still) - saved,
        trained=_bytes(moving),
        loaded=loaded - saved,
        largest_trained=max((p.numel() * p.element_size() for p in moving), default=0),
        largest_frozen=max((p.numel() for p in still if id(p) in quantised), default=0),
        unit=max(sum(p.numel() for p in unit) for unit in units),
        root=sum(p.numel() for p in root),
        unit_trained=max(sum(p.numel() for p in unit if p.requires_grad) for unit in units),
        root_trained=sum(p.numel() for p in root if p.requires_grad),
        hidden=weight.shape[1] * weight.element_size(),
        width=weight.shape[1],
        head=_bytes(list(head.parameters())) if any(p.requires_grad for p in head.parameters()) else 0,
        layers=len(stack),
        adapter=base is not net,
    )


def _bytes(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _quantised(net: Any, stack: list[nn.Module]) -> set[int]:
    """The frozen weights of linear layers in the decoder."""
    return {
        id(module.weight)
        for layer in stack
        for module in layer.modules()
        if isinstance(module, nn.Linear) and not module.weight.requires_grad
    }
