"""The optimizer's state of a run in shards: whole, as safetensors, so that any number of processes goes on from it.

``optimizer.safetensors`` holds each tensor of the state under ``NUMBER/KEY`` (the parameter's number in the optimizer's
groups, the state's key, such as ``exp_avg``), ``optimizer.json`` the groups and what else the state holds.  A run that is
not sharded has transformers' ``optimizer.pt`` with the same in it, and each kind of run goes on from the other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge import files
from expunge.forward.family import local
from expunge.training import pieces

NAME = "optimizer"
WHOLE, GROUPS = "optimizer.pt", "optimizer.json"
REMEDY = "resume from another checkpoint, or use --fresh"


def exists(place: Path) -> bool:
    """Whether the checkpoint ``place`` holds an optimizer's state in this form."""
    return (place / GROUPS).is_file()


def tensors(optimizer: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the optimizer's state, in the same order in all processes."""
    for number, held in sorted(optimizer.state_dict()["state"].items()):
        for key, value in sorted(held.items()):
            if torch.is_tensor(value):
                yield f"{number}/{key}", value


def write_groups(place: Path, optimizer: Any) -> None:
    """Write what the state of ``optimizer`` holds besides :func:`tensors`."""
    said = optimizer.state_dict()
    values = {
        str(number): {key: value for key, value in held.items() if not torch.is_tensor(value)}
        for number, held in said["state"].items()
    }
    groups = [{key: _plain(value) for key, value in group.items()} for group in said["param_groups"]]
    files.write_json(place / GROUPS, {"schema": 1, "groups": groups, "values": values})


def load(place: Path, optimizer: Any) -> None:
    """Give ``optimizer`` the state that the checkpoint ``place`` holds, in either form; each process reads its shards."""
    if not exists(place):
        held = torch.load(place / WHOLE, map_location="cpu", weights_only=True, mmap=True)
        optimizer.load_state_dict(_sharded(held, optimizer))
        return
    said = files.read_json(place / GROUPS, description="optimizer's state", remedy=REMEDY)
    params = _parameters(optimizer)
    state: dict[int, dict[str, Any]] = {int(number): dict(held) for number, held in said["values"].items()}
    with pieces.reading(place, NAME) as found:
        for name in sorted(found.names):
            number, _, key = name.partition("/")
            param = params[int(number)]
            index = pieces.index_of(param) if found.shape(name) == tuple(param.shape) else None
            state.setdefault(int(number), {})[key] = _placed(found.read(name, index), param, found.shape(name))
    groups = [{key: _group_value(key, value) for key, value in group.items()} for group in said["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _parameters(optimizer: Any) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _sharded(held: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
    """A whole state as ``optimizer`` takes it: of what has a parameter's shape the part that its shard is."""
    params = _parameters(optimizer)

    def part(param: Tensor, value: Any) -> Any:
        if not torch.is_tensor(value):
            return value
        index = pieces.index_of(param) if value.shape == param.shape else None
        return _placed(value if index is None else value[index].clone(), param, tuple(value.shape))

    state = {n: {key: part(params[n], value) for key, value in of.items()} for n, of in held["state"].items()}
    return {**held, "state": state}


def _placed(value: Tensor, param: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``value``, which is of a tensor of this ``shape``, as the state of ``param``: cut as a DTensor of the same shape is,
    of another shape the same in all processes, and a count of steps as it is.
    """
    if not shape or not hasattr(param, "placements"):
        return value
    if shape == tuple(param.shape):
        return pieces.like(param, value)
    from torch.distributed.tensor import DTensor, Replicate

    mesh = param.device_mesh  # type: ignore[attr-defined]
    return DTensor.from_local(value.to(local(param).device), mesh, [Replicate()] * mesh.ndim, run_check=False)


def _group_value(key: str, value: Any) -> Any:
    """A setting of an optimizer's group as it was before it was JSON."""
    return tuple(value) if isinstance(value, list) and key != "params" else value


def _plain(value: Any) -> Any:
    return value.item() if torch.is_tensor(value) else value
