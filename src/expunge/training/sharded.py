"""A model in shards over several processes: FSDP2 (``torch.distributed.fsdp.fully_shard``), as accelerate applies it.

accelerate shards a model when training begins.  Here it is sharded when the trainer is made, so that what is measured and
cached before the first step also runs on shards.  On CPUs accelerate takes no notice of FSDP and trains with DDP; there its
state is told, so that the same code runs on a CPU as on GPUs.

Each process holds dim-0 slices of the parameters, as DTensors, and of their gradients and moments.  The unsharded weights of
a module exist while it runs.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InputError
from expunge.forward import family
from expunge.forward.family import is_sharded, local, reshard, whole

WRAPPED = "_checkpoint_wrapped_module."  # what activation checkpointing puts into the names of weights


# -- how it is switched on --------------------------------------------------------------------------------------------------
def switched_on(args: Any) -> bool:
    """Whether training arguments, or the configuration of ``accelerate launch``, ask for FSDP."""
    return bool(getattr(args, "fsdp", None)) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def version(accelerator: Any) -> int | None:
    """The version of FSDP that ``accelerator`` shards with, None where it shards nothing.

    Raises InputError for version 1.
    """
    if accelerator.distributed_type.value != "FSDP":
        return None
    found = int(accelerator.state.fsdp_plugin.fsdp_version)
    _check_version(found)
    return found


def check(args: Any) -> None:
    """Raise InputError where training arguments, or ``accelerate launch``, ask for version 1, for CPUs with a torch that
    cannot, or for an optimizer that cannot.
    """
    if not switched_on(args):
        return
    if args.device.type == "cpu" and not runs_on_cpu():
        raise InputError(
            f"torch {torch.__version__} shards with FSDP2 on GPUs only; for CPUs take a newer torch "
            "(pip install -U torch), or leave FSDP out"
        )
    plugin = getattr(args, "fsdp_plugin_args", None) or {}
    _check_version(int(plugin.get("fsdp_version") or os.environ.get("FSDP_VERSION", "1")))
    optim = getattr(args, "optim", None)
    if getattr(optim, "value", optim) == "adafactor":  # its means over rows and columns are no DTensors
        raise InputError("optim=adafactor does not run on shards (FSDP); use optim=adamw_torch, or leave it out")


def runs_on_cpu() -> bool:
    """Whether this torch has what FSDP2 asks of a CPU's streams."""
    return hasattr(torch.cpu.Stream, "record_event")


def _check_version(found: int) -> None:
    if found != 2:
        raise InputError(
            f"FSDP version {found} flattens parameters, and expunge combines the gradients of each; use version 2: "
            'fsdp_config={"version": 2}, or fsdp_version: 2 in the configuration of accelerate launch'
        )


def enable_on_cpu(accelerator: Any, args: Any) -> bool:
    """Switch FSDP on where ``args`` ask for it and accelerate, on CPUs, did not; whether it is on now."""
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    if accelerator.distributed_type != DistributedType.MULTI_CPU or not switched_on(args):
        return bool(accelerator.distributed_type == DistributedType.FSDP)
    plugin = FullyShardedDataParallelPlugin(**(getattr(args, "fsdp_plugin_args", None) or {}))
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP
    return True


# -- sharding ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Shards:
    """A sharded ``model``, and its ``skeleton``: the same modules with weights that have a shape and no storage."""

    model: Any
    skeleton: Any
    accelerator: Any

    def frozen_copy(self) -> Any:
        """A sharded copy of the model as it is now, that neither trains nor drops out; each process copies its shards."""
        made: nn.Module = _fully_sharded(self.accelerator, copy.deepcopy(self.skeleton).requires_grad_(False))
        made.to_empty(device=self.accelerator.device)
        with torch.no_grad():
            for p, q in zip(made.parameters(), self._parameters(), strict=True):
                local(p).copy_(local(q))
            for b, c in zip(made.buffers(), self.model.buffers(), strict=True):
                b.copy_(c)
        _initialise(made.eval())
        return made

    def gathered(self) -> Any:
        """The whole model on the CPU of the main process, where it must fit; the sharded one on the others."""
        main = self.accelerator.is_main_process
        weights: dict[str, Tensor] = {}
        for (name, _), p in zip(self.skeleton.named_parameters(), self._parameters(), strict=True):
            value = whole(p.detach()).to("cpu")  # of one weight at a time; all processes take part
            if main:
                weights[name] = value
        return filled(self.skeleton, weights, self.model.training) if main else self.model

    def _parameters(self) -> Iterator[nn.Parameter]:
        reshard(self.model)
        return iter(self.model.parameters())


def shard(accelerator: Any, model: Any) -> Shards:
    """``model`` sharded in place over the processes of ``accelerator``, whose device each shard is on."""
    skeleton = skeleton_of(model)
    made = Shards(_fully_sharded(accelerator, model), skeleton, accelerator)
    accelerator.state.fsdp_plugin.activation_checkpointing = False  # it is applied, and must not be once more
    _initialise(made.model)
    return made


def _fully_sharded(accelerator: Any, model: Any) -> Any:
    from accelerate.utils.fsdp_utils import fsdp2_apply_ac, fsdp2_prepare_model

    plugin = accelerator.state.fsdp_plugin
    plugin.set_auto_wrap_policy(model)
    if plugin.activation_checkpointing:
        model = fsdp2_apply_ac(accelerator, model)
    return fsdp2_prepare_model(accelerator, model)


@torch.no_grad()
def _initialise(model: nn.Module) -> None:
    """Run ``model`` over one token: its first pass tells FSDP which modules there are, and some losses leave layers out."""
    device = next(model.parameters()).device
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    family.run(model, input_ids=token, attention_mask=torch.ones_like(token), use_cache=False)
    reshard(model)


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose weights take no memory; weights that are shared stay so, buffers are copied."""
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, dict(empty))


def filled(skeleton: nn.Module, weights: Mapping[str, Tensor], training: bool) -> nn.Module:
    """A copy of ``skeleton`` with ``weights``, which are not copied."""
    made = copy.deepcopy(skeleton)
    by_id = {id(p): nn.Parameter(weights[name], requires_grad=p.requires_grad) for name, p in made.named_parameters()}
    for module in made.modules():
        for key, p in module._parameters.items():
            if p is not None:
                module._parameters[key] = by_id[id(p)]
    return made.train(training)


# -- training ---------------------------------------------------------------------------------------------------------------
def placed(model: Any, device: Any) -> Any:
    """``model`` on ``device``; a sharded one is there."""
    return model if is_sharded(model) else model.to(device)
