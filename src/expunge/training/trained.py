"""The weights that train, under their names in the model, as safetensors: what a checkpoint is exactly resumed from.

transformers writes weights under the names of the model's files, which for some families (a mixture of experts) are not
those of the model in memory; its trainer does not translate them back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from expunge.errors import InputError
from expunge.forward.family import reshard
from expunge.training import pieces
from expunge.training.sharded import WRAPPED

NAME = "trained"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Name -> weight of ``model`` that trains, or buffer that it is saved with; of a sharded model this process's part."""
    reshard(model)
    held = model.state_dict()
    moving = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    kept = {name: b for name, b in model.named_buffers() if name in held and name not in moving}
    return {name.replace(WRAPPED, ""): value for name, value in {**moving, **kept}.items()}


@torch.no_grad()
def load(place: Path, model: nn.Module) -> bool:
    """Give ``model`` the weights of the checkpoint ``place``; False where it holds none in this form.

    Raises InputError where they are not those that train in ``model``.
    """
    if not pieces.exists(place, NAME):
        return False
    own = weights_of(model)
    with pieces.reading(place, NAME) as held:
        if odd := sorted(held.names ^ own.keys()):
            raise InputError(
                f"{place} holds the weights of another model: {odd[0]} is in only one of the two; use --fresh"
            )
        for name, weight in own.items():
            pieces.read_into(weight, held, name)
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
