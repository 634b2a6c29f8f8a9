"""What an optimizer holds of a number that trains, in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """Bytes of state a number that trains, of which ``paged`` ones may move to main memory where the card is full;
    ``factored``: of a matrix only row and column means are held.  ``known``: whether this is more than a guess.
    """

    bytes: float
    paged: bool = False
    factored: bool = False
    known: bool = True


BLOCK = 4 / 256  # bitsandbytes' 8-bit states: a float32 scale for 256 numbers
STATES = {
    "adamw_torch": State(8),
    "adamw_torch_fused": State(8),
    "adamw_torch_xla": State(8),
    "adamw_apex_fused": State(8),
    "adamw_anyprecision": State(8),
    "adamw_8bit": State(2 * (1 + BLOCK)),
    "adamw_bnb_8bit": State(2 * (1 + BLOCK)),
    "paged_adamw_32bit": State(8, paged=True),
    "paged_adamw": State(8, paged=True),
    "paged_adamw_8bit": State(2 * (1 + BLOCK), paged=True),
    "ademamix": State(12),
    "ademamix_8bit": State(3 * (1 + BLOCK)),
    "paged_ademamix_32bit": State(12, paged=True),
    "paged_ademamix_8bit": State(3 * (1 + BLOCK), paged=True),
    "lion": State(4),
    "lion_32bit": State(4),
    "lion_8bit": State(1 + BLOCK),
    "paged_lion": State(4, paged=True),
    "paged_lion_32bit": State(4, paged=True),
    "paged_lion_8bit": State(1 + BLOCK, paged=True),
    "rmsprop": State(4),
    "rmsprop_bnb": State(4),
    "rmsprop_bnb_32bit": State(4),
    "rmsprop_bnb_8bit": State(1 + BLOCK),
    "adagrad": State(4),
    "adafactor": State(0.01, factored=True),
    "sgd": State(0),
    "sophia": State(8),
}
GUESS = State(8, known=False)


def state_of(name: str) -> State:
    """The state of the optimizer that the training argument ``optim`` calls ``name``; two moments where it is not known.

    >>> state_of("adamw_torch").bytes, state_of("sgd").bytes, state_of("of_mine").known
    (8, 0, False)
    """
    return STATES.get(name, GUESS)


def temporary(name: str, trained: float, largest: float, *, gpu: bool) -> float:
    """Bytes that a step of the optimizer takes for a while: of all weights that train, or of the ``largest`` tensor.

    AdamW makes the denominator (two tensors at a time), weight after weight; fused it makes nothing.  Sophia makes the
    direction of all weights at once.
    """
    if name == "sophia":
        return trained
    return 0.0 if name.endswith("fused") or "bit" in name else 2 * largest


def curvature_buffers(curvature: str | None) -> tuple[int, int]:
    """Sophia's (buffers held while the curvature is estimated, and when the optimizer takes it), each as large as the
    weights that train; besides gradient and moments.

    Gauss-Newton: the gradient of sampled labels, then its square.  Hutchinson: a probe, the start's weights and the
    product, then the estimate beside probe and product.  Squared gradient: the square.
    """
    return {"gauss_newton": (1, 2), "hutchinson": (3, 3), "squared_gradient": (0, 1)}.get(curvature or "", (0, 0))
