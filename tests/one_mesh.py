"""A mesh of one process in a group of its own, and shards as another process of many would have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard


@contextmanager
def mesh(folder: Path) -> Iterator[Any]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        torch.distributed.destroy_process_group()


def shard(whole: torch.Tensor, rank: int, processes: int, dim: int = 0) -> Any:
    """What stands for a DTensor of which this process, one of many, has a part."""
    parts = whole.chunk(processes, dim)
    mine = parts[rank] if rank < len(parts) else whole.narrow(dim, 0, 0)
    place = SimpleNamespace(size=lambda i: processes, get_local_rank=lambda i: rank)
    return SimpleNamespace(
        shape=whole.shape, dim=whole.dim, placements=(Shard(dim),), device_mesh=place, _local_tensor=mine.clone()
    )
