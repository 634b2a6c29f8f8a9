"""What a method needs of the processes that train it: refused where it is not there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from expunge.combine import Combiner
from expunge.errors import InputError
from expunge.method import Method

STEPS_INSIDE_BACKWARD = ("DEEPSPEED", "MEGATRON_LM")  # accelerate's names of what reduces or steps inside backward


def check(method: Method, combiner: Combiner, fixed_weights: Callable[[], Tensor], kind: str) -> None:
    """Raise InputError where ``method`` cannot train under ``kind``, an accelerate ``DistributedType``'s value.

    ``fixed_weights`` gives the weights of a combiner that reads no Gramian: one of each objective.
    """
    name, objectives = type(combiner).__name__, list(method.objectives)
    if combiner.needs_gram and kind in STEPS_INSIDE_BACKWARD:
        raise InputError(
            f"{name} combines gradients itself, which {kind} does not allow "
            "(it reduces and steps inside backward); use FSDP2, DDP or one process, or a method with fixed weights such as "
            "pdu_level"
        )
    if not combiner.needs_gram and (n := len(fixed_weights())) != len(objectives):
        raise InputError(
            f"{name} gives {n} weights, and {method.name} has {len(objectives)} objectives: {', '.join(objectives)}"
        )
    if method.negate is not None and kind in STEPS_INSIDE_BACKWARD:
        raise InputError(f"{method.name} turns whole weights round, which {kind} shards; use FSDP2, DDP or one process")
