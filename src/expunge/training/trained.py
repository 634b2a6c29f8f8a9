"""The weights that train, under their names in the model, as safetensors: what a checkpoint is exactly resumed from.

transformers writes weights under the names of the model's files, which for some families (a mixture of experts) are not
those of the model in memory; its trainer does not translate them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge.errors import InputError

FILE = "trained.safetensors"


def of(model: nn.Module) -> dict[str, Tensor]:
    """Name -> weight of ``model`` that trains, or buffer that it is saved with."""
    held = model.state_dict()
    moving = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return moving | {name: b for name, b in model.named_buffers() if name in held and name not in moving}


def write(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write ``weights`` to ``file``, each with a memory of its own."""
    save_file({name: w.detach().to("cpu", copy=True).contiguous() for name, w in weights.items()}, file)


def read(file: Path) -> dict[str, Tensor]:
    """The weights in ``file``, in main memory."""
    return dict(load_file(file))


@torch.no_grad()
def load(place: Path, model: nn.Module) -> bool:
    """Give ``model`` the weights of the checkpoint ``place``; False where it holds none in this form.

    Raises InputError where they are not those that train in ``model``.
    """
    file = place / FILE
    if not file.exists():
        return False
    held, own = read(file), of(model)
    if odd := sorted(held.keys() ^ own.keys()):
        raise InputError(f"{place} holds the weights of another model: {odd[0]} is in only one of the two; use --fresh")
    for name, weight in own.items():
        weight.copy_(held[name])
    return True


def covers(place: Path, model: Any) -> bool:
    """Whether what transformers saved in ``place`` has every weight that trains in ``model`` under its name there.

    Of an adapter PEFT translates the names itself.
    """
    if hasattr(model, "peft_config"):
        return True
    saved = set[str]()
    for file in place.glob("model*.safetensors"):
        with safe_open(file, "pt") as tensors:
            saved |= set(tensors.keys())
    return {name for name, p in model.named_parameters() if p.requires_grad} <= saved


def is_sharded(trainer: Any) -> bool:
    """Whether no process holds the model's weights whole."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
