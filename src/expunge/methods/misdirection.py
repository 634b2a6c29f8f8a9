"""Rows of the table that work on a layer's activations: RMU, and BLUR over its losses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from expunge import losses
from expunge.combine import Bilevel, Combiner, WeightedSum
from expunge.errors import InputError
from expunge.forward import layers
from expunge.forward.view import Positions
from expunge.method import Activations, Method, Objective, method
from expunge.methods.published import NonNegative, Positive

Auto = Literal["auto"]
Layer = Annotated[int, Field(ge=0)]
Steered = Literal["all", "answer_unshifted"]

DEPTH = 7 / 32  # of Zephyr-7B's layers, the published one
FACTOR = 5.0  # target length over the activations' own, as in Adaptive RMU (arXiv:2408.06223)
# What writes an MLP's, an expert's or a Mamba block's output into the residual stream, by the names that families give it.
OUTPUT = re.compile(r"(down_proj|c_proj|dense_4h_to_h|fc2|fc_out|w2|output_linear|wo)(\.weight)?$")
MIXER = re.compile(r"out_proj\.weight$")
ATTENTION = re.compile(r"attn|attention")


@method(paper="arXiv:2403.03218")
def rmu(
    *,
    layer: Layer | Auto = "auto",
    steering_coefficient: Positive | Auto = "auto",
    retain_weight: NonNegative = 1200.0,
    trainable: str | None = None,
    direction_seed: int = 0,
    positions: Steered = "all",
) -> Method:
    """Representation misdirection: steer the forget texts' activations at a layer, keep those of the retain texts.

    Li et al. 2024; layer 7 of 32, coefficient 6.5, retain weight (α) 1200 and learning rate 5e-5 are the published values
    for Zephyr-7B.  ``layer="auto"`` is the one at that depth.  The coefficient is an activation's length, so it has to grow
    with the model's own: ``"auto"`` is 5 times the median length of the forget texts' activations at the layer, measured
    before the first step.  A retain weight of 1200 suits forget and retain texts of different kinds, as in WMDP; it holds
    everything where they are alike: lower it then.

    Trains what writes the MLPs' output (``down_proj``, ``c_proj``, ``dense_4h_to_h``, experts too) of the layer and the
    two below it, as there; ``trainable`` is another regular expression on weights' names; ``direction_seed`` draws the
    direction.  No layer above is run, forward or backward.

    To reproduce OpenUnlearning: ``positions="answer_unshifted"`` steers and keeps the labelled tokens alone, in place of all
    real ones.  Its mean over the batch divides by every row's length in turn; here each row is divided by its own, which is
    the same where the rows of a batch have equally many labelled tokens.
    """
    combine = WeightedSum(1.0, retain_weight)
    return _misdirection(layer, steering_coefficient, trainable, direction_seed, combine, positions)


@method(paper="arXiv:2506.08164")
def blur_rmu(
    *,
    layer: Layer | Auto = "auto",
    steering_coefficient: Positive | Auto = "auto",
    gamma: NonNegative = 0.00125,
    one_sided: bool = False,
    trainable: str | None = None,
    direction_seed: int = 0,
    positions: Steered = "all",
) -> Method:
    r"""BLUR over RMU's losses: the activation-matching gradient is projected off the steering gradient.

    Reisizadeh et al. 2025.  The published WMDP code steps along :math:`g_f + \alpha\,(g_r - \mathrm{proj}_{g_f} g_r)`; up to
    a length, which Adam removes, that is ``gamma = 1/α``, and its α of 800 is the default here.  Learning rate 5e-5; layer,
    coefficient, the trained matrices, the direction and positions as in :func:`rmu`.  γ is not relative here: the matching
    gradient is 0 at the start, and so would be every step.
    """
    combine = Bilevel(gamma, one_sided=one_sided)
    return _misdirection(layer, steering_coefficient, trainable, direction_seed, combine, positions)


def _misdirection(
    layer: int | Auto,
    coefficient: float | Auto,
    trainable: str | None,
    seed: int,
    combine: Combiner,
    positions: Steered = "all",
) -> Method:
    """The method; what is left to the model is chosen by ``fit``, and no number until then."""
    at = 0 if layer == "auto" else layer
    length = math.nan if coefficient == "auto" else coefficient
    steer = partial(losses.steering, layer=at, steering_coefficient=length, seed=seed)
    match = partial(losses.activation_matching, layer=at)
    where: Positions = "answer" if positions == "all" else positions  # a view's usual positions are of logits; M is all
    return Method(
        {
            "forget": Objective(steer, ("forget",), positions=where),
            "retain": Objective(match, ("retain",), reference=Activations(at), positions=where),
        },
        combine,
        learning_rate=5e-5,
        trainable=trainable,
        fit=partial(_fitted, layer=layer, coefficient=coefficient, trainable=trainable, seed=seed, positions=positions),
    )


def _fitted(
    made: Method,
    model: Any,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    layer: int | Auto,
    coefficient: float | Auto,
    trainable: str | None,
    seed: int,
    positions: Steered,
) -> Method:
    """``made`` with the layer, the coefficient and the weights that suit ``model`` where they were left to it."""
    depth = len(layers.decoder_layers(model)[2])
    at = min(round(DEPTH * depth), depth - 1) if layer == "auto" else layer
    with layers.up_to(model, at):  # raises for a layer that does not exist
        pass
    length = FACTOR * median_length(model, batches, at) if coefficient == "auto" else coefficient
    moving = trainable or outputs(model, range(max(0, at - 2), at + 1))
    own = _misdirection(at, length, moving, seed, made.combine, positions)
    chosen = {"layer": at, "steering_coefficient": length}
    return replace(made, objectives=own.objectives, trainable=own.trainable, fit=None, chosen=chosen)


@torch.no_grad()
def median_length(model: nn.Module, batches: Iterable[Mapping[str, Tensor]], layer: int) -> float:
    """The median over all real tokens of the length of their activation after ``layer``."""
    return float(torch.cat([layers.hidden_after(model, batch, layer).norm(dim=1) for batch in batches]).median())


def outputs(model: Any, numbers: Iterable[int]) -> str:
    r"""A regular expression on the weights that write the MLPs' output into the residual stream in the layers ``numbers``.

    Such as ``\.layers\.(5|6|7)\.(mlp\.down_proj\.weight)$``; raises InputError where a family calls them otherwise.
    """
    decoder, name, stack = layers.decoder_layers(model)
    named = ((n.replace(".base_layer", ""), p) for k in numbers for n, p in stack[k].named_parameters())
    inside = [n for n, p in named if p.ndim > 1 and not ATTENTION.search(n)]
    found = [n for n in inside if OUTPUT.search(n)] or [n for n in inside if MIXER.search(n)]
    if not found:
        raise InputError(
            f"it is not known which weights of {type(decoder).__name__} write a layer's output; say it as a regular "
            f"expression on names such as {inside[-1] if inside else name}, -p trainable=REGEX"
        )
    kinds = sorted({re.sub(r"\d+", r"\\d+", re.escape(n)) if ".experts." in n else re.escape(n) for n in found})
    return rf"\.{name}\.({'|'.join(map(str, numbers))})\.({'|'.join(kinds)})$"
