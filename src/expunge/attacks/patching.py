r"""Activation patching: how deep the forgetting goes (UDS), where target and retrained model are given.

The target model reads a right answer; after layer l its hidden states at the positions that predict the answer are
replaced by those of a source S, the retrained or the unlearned model.  What the answer's tokens lose by it,

.. math:: \Delta^S_l = \tfrac1T \sum_t \bigl(s^{\mathrm{target}}_t - s^{S,l}_t\bigr), \qquad
    \mathrm{UDS} =
    \frac{\sum_{l \in F} \Delta^{\mathrm{ret}}_l \,\mathrm{clip}(\Delta^{\mathrm{unl}}_l / \Delta^{\mathrm{ret}}_l, 0, 1)}
    {\sum_{l \in F} \Delta^{\mathrm{ret}}_l}, \qquad F = \{l : \Delta^{\mathrm{ret}}_l > 0.05\},

is 1 where no layer holds more than in a model that never saw the row.  The figure of a row is 1 - UDS; that of strength
0 takes the last layer alone, which is nearly what the output shows.  0 where F is empty: there the retrained model
knows the answer too. The paper scores an entity's tokens; here all of the answer's but the end token.

arXiv:2605.24614.  Cost: 2 · layers + 3 forward passes over the rows, and three models in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from expunge.attacks.attack import Array, Attack, Measure, Point, Subject
from expunge.attacks.forced import Forced, batches, by_row, logits, spread, token_logp
from expunge.attacks.restore import evaluated
from expunge.errors import InputError
from expunge.forward.family import unwrap
from expunge.forward.layers import decoder_layers

LAYERS = 8
THRESHOLD = 0.05


def patching(subject: Subject, measure: Measure, *, layers: int = LAYERS) -> list[Point]:
    """1 - UDS of each row, of the last layer and of ``layers`` of them; InputError where the models differ in shape."""
    models = {"target": subject.target, "retrained": subject.retrained, "model": subject.model}
    shapes = {name: (len(_layers(m)), m.config.get_text_config().hidden_size) for name, m in models.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(
            "activation patching needs a target and a retrained model with the layers and width of the model"
        )
    tried = spread(shapes["model"][0], layers)
    with ExitStack() as stack:
        for m in models.values():
            stack.enter_context(evaluated(m))
        forced = batches(subject, subject.forget, model=subject.target)
        retrained, unlearned = (
            np.concatenate([losses(subject.target, source, batch, tried) for batch in forced], axis=1)
            for source in (subject.retrained, subject.model)
        )
    return [
        Point(0, "last layer", kept(retrained[-1:], unlearned[-1:])),
        Point(1, "all layers", kept(retrained, unlearned)),
    ]


def kept(retrained: Array, unlearned: Array) -> Array:
    """(L, n) Δ of the retrained and of the unlearned model -> (n,) 1 - UDS.

    Hand-worked: Δ of 1, 2 and 0.01 for the retrained and ½, 3 and 5 for the unlearned model leave two layers:
    UDS = (1 · ½ + 2 · 1) / 3.

    >>> kept(np.array([[1.0], [2.0], [0.01]]), np.array([[0.5], [3.0], [5.0]])).round(6).tolist()
    [0.166667]
    """
    weight = np.where(retrained > THRESHOLD, retrained, 0.0)
    share = np.clip(unlearned / np.where(weight > 0, retrained, 1.0), 0.0, 1.0)
    total = weight.sum(axis=0)
    lacking = (weight * share).sum(axis=0)
    return np.asarray(np.where(total > 0, 1 - lacking / np.where(total > 0, total, 1.0), 0.0))


def losses(target: Any, source: Any, batch: Forced, layers: Sequence[int]) -> Array:
    """(L, B) Δ: what each row's answer loses a token when ``target`` continues from ``source`` after each of ``layers``."""
    states = states_of(source, batch, layers)
    whole = token_logp(target, batch)
    out = []
    for layer in layers:
        with replaced_output(_layers(target)[layer], batch.keep, states[layer]):
            out.append(by_row(batch, whole - token_logp(target, batch)))
    return np.stack(out)


def states_of(model: Any, batch: Forced, layers: Sequence[int]) -> Mapping[int, Tensor]:
    """Layer -> (N, D) the hidden states after it at the positions that predict the answer."""
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_: nn.Module, __: Any, out: Any) -> None:
            found[layer] = (out[0] if isinstance(out, tuple) else out)[batch.keep]

        return hook

    handles = [_layers(model)[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def replaced_output(layer: nn.Module, keep: Tensor, states: Tensor) -> Iterator[None]:
    """Within it ``layer`` gives ``states`` (N, D) at the positions ``keep`` (B, T)."""

    def hook(_: nn.Module, __: Any, out: Any) -> Any:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[keep] = states.to(hidden)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _layers(model: Any) -> nn.ModuleList:
    return decoder_layers(unwrap(model))[2]


ATTACKS = (
    Attack(
        "patching",
        "inside",
        "layers from which the target goes on to the answer",
        patching,
        needs=("target", "retrained"),
    ),
)
