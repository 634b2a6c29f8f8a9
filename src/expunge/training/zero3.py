"""DeepSpeed's ZeRO 3: each process keeps a part of every weight, and a module gathers its weights while it runs.

The model is made whole in each process, measured and cached from, and partitioned when training begins.  From then on every
forward pass is one of all processes.  ``deepspeed`` is imported only where it is switched on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from expunge.training import sharded


def switched_on(args: Any) -> bool:
    """Whether training arguments, or the configuration of ``accelerate launch``, ask for ZeRO 3."""
    plugin = getattr(args, "deepspeed_plugin", None)
    return plugin is not None and int(plugin.zero_stage) == 3


def make_whole(args: Any) -> None:
    """Have transformers make models whole: in parts (``zero.Init``) a model would have to know the step's rows first."""
    if switched_on(args):
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def gathered(skeleton: nn.Module, model: nn.Module, *, main: bool) -> nn.Module:
    """A copy of ``skeleton`` with the weights of ``model`` on the CPU of the ``main`` process, where it must fit; ``model``
    itself in the others.  All processes take part.
    """
    weights: dict[str, Tensor] = {}
    for (name, _), value in zip(skeleton.named_parameters(), _whole(model), strict=True):
        if main:
            weights[name] = value.to("cpu", copy=True)
    if not main:
        return model
    made = sharded.filled(skeleton, weights, model.training)
    for (_, b), (_, c) in zip(made.named_buffers(), model.named_buffers(), strict=True):
        b.copy_(c)
    return made.to("cpu")


def _whole(model: nn.Module) -> Iterator[Tensor]:
    """Each weight in turn, whole until the next is taken."""
    from deepspeed import zero

    for p in model.parameters():
        with zero.GatheredParameters([p]):
            yield p.detach()
