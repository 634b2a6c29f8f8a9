r"""How much arithmetic a step needs.

Of T real tokens (prompt and answer, no padding), L of them labelled, with N the weights of the decoder's matrices,
V·D those of the head, and 2 operations a weight and token in each of forward, gradient of the activations and
gradient of the weights:

* all weights train: :math:`6 N T + 6 V D L`;
* LoRA on frozen weights: :math:`4 N T + 4 V D L + 6 N_{\mathrm{LoRA}} T`, for frozen weights need no gradient;
* a margin (PDU's forget loss) has a closed-form gradient: of its head the forward product only, :math:`2 V D L`;
* a reference of logits (KL) adds one product with the head, :math:`2 V D L`; cached log-probabilities add nothing;
* RMU runs the layers up to ℓ forward, and back through ℓ and ℓ - 1 to the trained matrices of ℓ - 2 … ℓ.

Attention's own products (:math:`6 \cdot 2 \cdot` width · length a token and layer; 0.3 % at 8B and 100 tokens) are
left out.  It is the work that the method asks for, the same for every trainer: what one recomputes (gradient
checkpointing runs the decoder forward once more, :math:`2 N T`), spends on padding or on logits that no loss reads is
not counted as work, but costs time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge import losses
from expunge.forward.layers import decoder_layers, output_embedding
from expunge.method import Activations, Method
from expunge.training.reference import layer_read

Tokens = Mapping[str, tuple[float, float]]  # stream -> (real tokens, labelled tokens)


def operations(model: Any, method: Method, tokens: Tokens) -> float:
    """Floating-point operations of one step of ``method`` on ``tokens``, by the formulas above."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = list(decoder_layers(base)[2])
    if isinstance(what := layer_read(method.objectives), Activations):
        return sum(t for t, _ in tokens.values()) * _up_to(layers, what.layer)
    lora = base is not model
    body, added = (sum(_weights(layer, adapter=a) for layer in layers) for a in (False, True))
    weight: Any = output_embedding(base).weight
    total = 0.0
    for objective in method.objectives.values():
        real, labelled = tokens[objective.on[0]]
        total += (4 if lora else 6) * body * real + 6 * added * real
        passes = 2 if objective.function is losses.flattened_margin else 4 if lora else 6
        total += (passes + (2 if objective.reference == "logits" else 0)) * weight.numel() * labelled
    return total


def _up_to(layers: list[Any], last: int) -> float:
    """Operations a token of RMU at layer ``last``."""
    forward = 2 * sum(_weights(layer) for layer in layers[: last + 1])
    backward = 2 * sum(_weights(layer) for layer in layers[max(0, last - 1) : last + 1])
    trained = sum(p.numel() for layer in layers[: last + 1] for p in layer.parameters() if p.requires_grad)
    return float(forward + backward + 2 * trained)


def _weights(layer: Any, *, adapter: bool = False) -> int:
    """Entries of a layer's matrices, those of an adapter or all others."""
    return sum(p.numel() for n, p in layer.named_parameters() if p.ndim == 2 and (".lora_" in n) == adapter)
