"""Where families of models differ when they are run: the name of the cache, what it holds, what routers return besides.

transformers calls the cache ``cache``, in older releases ``past_key_values``, and in state-space models ``cache_params``.
Mamba, linear attention and short convolutions keep a running state in it, of which no position can be taken out, put in or
repeated; :func:`by_position` says so from the model's configuration, before anything is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from expunge.errors import InputError

CACHES = ("cache", "past_key_values", "cache_params")
BY_POSITION = (
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "DummyLayer",
)  # the last: a layer that has no cache of its own


def run(model: nn.Module, *, cache: Any = None, **inputs: Any) -> Any:
    """``model(**inputs)`` going on from ``cache``, under the name that the model takes it by.

    A mixture of experts returns no router logits, whatever its configuration says: its load-balancing loss, which is not
    trained on here, fails where a mask is longer than the tokens.
    """
    known = {} if cache is None else {cache_name(model): cache}
    return model(**inputs, **known, **without_routers(model))


def without_routers(model: nn.Module) -> dict[str, bool]:
    """The argument of a forward pass that switches router logits off, where the configuration switches them on."""
    config = getattr(_plain(model), "config", None)
    on = config is not None and getattr(config.get_text_config(), "output_router_logits", False)
    return {"output_router_logits": False} if on else {}


def cache_name(model: nn.Module) -> str:
    """The argument that ``model`` takes a cache by."""
    taken = inspect.signature(_plain(model).forward).parameters
    return next((name for name in CACHES if name in taken), CACHES[1])


def cache_of(out: Mapping[str, Any]) -> Any:
    """The cache that a forward pass returned; raises NotImplementedError where there is none."""
    for name in CACHES:
        if (found := out.get(name)) is not None:
            return found
    raise NotImplementedError("the model returns no cache")


def by_position(model: nn.Module) -> bool:
    """Whether ``model`` remembers a text as keys and values of its positions and nothing else."""
    if getattr(_plain(model), "_is_stateful", False):
        return False
    try:
        layers = DynamicCache(config=_plain(model).config).layers
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ):  # a kind of layer that transformers' own cache does not know
        return False
    return all(type(layer).__name__ in BY_POSITION for layer in layers)


def positions(model: nn.Module) -> int | None:
    """How many positions ``model`` has an embedding for; None where it computes them, and so has no last one."""
    plain = _plain(model)
    config = getattr(plain, "config", None)
    most = getattr(config.get_text_config(), "max_position_embeddings", None) if config is not None else None
    if not most:
        return None
    tables = (m for m in plain.modules() if isinstance(m, nn.Embedding) and m is not plain.get_input_embeddings())
    return most if any(most <= m.num_embeddings <= most + 2 for m in tables) else None  # OPT has two rows more


def tokens_left(model: nn.Module, prompt: int, wanted: int) -> int:
    """How many of ``wanted`` tokens fit behind a prompt of ``prompt``; InputError where that is none."""
    most = positions(model)
    if most is not None and prompt >= most:
        raise InputError(f"a prompt of {prompt} tokens is longer than the model's {most} positions; shorten it")
    return wanted if most is None else min(wanted, most - prompt)


def unwrap(model: nn.Module) -> nn.Module:
    """The model under DDP, FSDP or ``torch.compile``."""
    if not (
        hasattr(model, "module") or hasattr(model, "_orig_mod")
    ):  # what every wrapper has; the rest walks all modules
        return model
    from accelerate.utils import extract_model_from_parallel

    result: nn.Module = extract_model_from_parallel(model, keep_fp32_wrapper=True, keep_torch_compile=False)
    return result


def is_sharded(model: nn.Module) -> bool:
    """Whether ``model`` is in shards (``torch.distributed.fsdp.fully_shard``)."""
    return hasattr(model, "set_requires_gradient_sync")  # of FSDPModule, which is slow to import


def kind(module: nn.Module) -> type[nn.Module]:
    """The class of ``module``, before it was sharded if it was."""
    return type(module).__mro__[2] if is_sharded(module) else type(module)  # after FSDPLinear and FSDPModule: Linear


def reshard(model: nn.Module) -> None:
    """Let go of the unsharded weights of ``model``: ``parameters()`` gives the shards, as DTensors, from then on."""
    if is_sharded(model):
        for module in model.modules():
            if is_sharded(module):
                module.reshard()  # type: ignore[operator]


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor, or of a weight that DeepSpeed holds in parts, which shares its memory; any other
    tensor itself.  No gradient.
    """
    in_parts = hasattr(tensor, "ds_tensor") and not tensor.numel()
    found: Tensor = getattr(tensor, "ds_tensor" if in_parts else "_local_tensor", tensor)
    return found.detach()


def shape_of(tensor: Tensor) -> torch.Size:
    """The shape of a weight, whole, wherever its parts are."""
    found: torch.Size = getattr(tensor, "ds_shape", tensor.shape)
    return found


def parameters(model: nn.Module) -> int:
    """How many parameters ``model`` has, in all processes together where they share them."""
    return sum(shape_of(p).numel() for p in model.parameters())


def in_parts(model: nn.Module) -> bool:
    """Whether DeepSpeed holds the weights of ``model`` in parts (ZeRO 3)."""
    return any(hasattr(p, "ds_id") for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """A DTensor as one tensor, of which all processes get a copy; any other tensor itself."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def _plain(model: nn.Module) -> Any:
    """The transformers model inside its wrappers (DDP, ``torch.compile``, PEFT)."""
    inner: Any = unwrap(model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner
