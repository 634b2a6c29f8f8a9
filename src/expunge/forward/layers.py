"""The parts of a causal language model: its head, its decoder layers, and a model that ends after one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from expunge.errors import InputError
from expunge.forward import padding
from expunge.forward.family import unwrap


def _lists(module: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    return [(n, m) for n, m in module.named_children() if isinstance(m, nn.ModuleList) and len(m)]


def decoder_layers(model: Any) -> tuple[nn.Module, str, nn.ModuleList]:
    """(the module that holds them, the name it holds them under, the layers) of a causal language model."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    found = _lists(decoder)
    if not found:  # Llama 4's text model says that it is its own decoder
        inner = [child for child in decoder.children() if _lists(child)]
        decoder = inner[0] if len(inner) == 1 else decoder
        found = _lists(decoder)
    if len(found) != 1:
        raise InputError(
            f"{type(decoder).__name__} holds {len(found)} lists of layers, so it cannot be said which is layer 0; "
            "methods that read activations need one"
        )
    name, layers = found[0]
    return decoder, name, layers


@contextmanager
def up_to(model: Any, layer: int) -> Iterator[nn.Module]:
    """While open, ``model`` has no layer above ``layer``; gives that layer."""
    decoder, name, layers = decoder_layers(model)
    if not 0 <= layer < len(layers):
        raise InputError(f"layer {layer} does not exist: the model has {len(layers)} layers, 0 to {len(layers) - 1}")
    setattr(decoder, name, nn.ModuleList(list(layers)[: layer + 1]))
    try:
        yield layers[layer]
    finally:
        setattr(decoder, name, layers)


def hidden_after(model: nn.Module, batch: Mapping[str, Any], layer: int) -> Tensor:
    """(M, D) activations after decoder layer ``layer`` at the M real tokens of ``batch``, in fp32.

    The layers above are taken out while the model runs, and its head returns the activations, so that a wrapper (DDP) sees
    an output that depends on exactly the weights that were used.
    """
    real = real_places(batch)
    with up_to(unwrap(model), layer) as last:
        made: dict[str, Tensor] = {}

        def keep(_: nn.Module, __: Any, out: Any) -> None:
            made["hidden"] = out[0] if isinstance(out, tuple) else out

        handle = last.register_forward_hook(keep)
        try:
            with head_returning(output_embedding(model), lambda _: at_places(made["hidden"], real).float()) as head:
                padding.run(model, batch)
        finally:
            handle.remove()
    return head["value"]


def real_places(batch: Mapping[str, Any]) -> Tensor:
    """(2, M) row and position of the real tokens of ``batch``: as the collator counted them, else read from the mask."""
    found: Tensor = batch["real"] if "real" in batch else batch["attention_mask"].nonzero().T
    return found


def at_places(hidden: Tensor, places: Tensor, skipped: int = 0) -> Tensor:
    """(B, T, D), (2, N) -> (N, D): ``hidden`` at rows and positions, the first of which is ``skipped``."""
    return hidden.flatten(0, 1).index_select(0, places[0] * hidden.shape[1] + places[1] - skipped)


@contextmanager
def head_returning(head: Any, f: Callable[[Tensor], Tensor]) -> Iterator[dict[str, Tensor]]:
    """While open, ``head`` returns ``f(hidden)``; ``["value"]`` is the last one."""
    made: dict[str, Tensor] = {}

    def forward(hidden: Tensor) -> Tensor:
        made["value"] = f(hidden)
        return made["value"]

    head.forward = forward
    try:
        yield made
    finally:
        del head.forward


def output_embedding(model: nn.Module) -> nn.Module:
    """The module that turns hidden states into logits."""
    head = unwrap(model).get_output_embeddings()  # type: ignore[operator]
    if head is None:
        raise TypeError(
            f"{type(unwrap(model)).__name__} has no output embedding; expunge works on causal language models"
        )
    result: nn.Module = head
    return result
