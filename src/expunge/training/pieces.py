"""Tensors of a checkpoint as safetensors, whole, in files of a bounded size: written one by one, read slice by slice.

``NAME.safetensors`` and, once that is full, ``NAME-2.safetensors``, ``NAME-3.safetensors``, …  Where a model is in shards
its tensors are gathered one after the other, all processes taking part, and the main process writes; what a process reads is
its own shard.  So the files say nothing of how many processes there were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from expunge.forward.family import local, whole

LIMIT = 4 << 30  # bytes of tensors after which a file is full; of a model in shards as much main memory is needed


def write(folder: Path, name: str, tensors: Iterable[tuple[str, Tensor]], *, limit: int | None = None) -> None:
    """Write ``tensors`` (key, tensor) to ``folder``, each with a memory of its own.

    DTensors are gathered, in which every process of their mesh has to take part: see :func:`gather`.  An error of the disk
    is raised when ``tensors`` is at its end, so that no other process waits for this one.
    """
    held: dict[str, Tensor] = {}
    size, number = 0, 1
    problem: Exception | None = None

    def flush() -> None:
        nonlocal held, size, number, problem
        if problem is None:
            try:
                save_file(held, _file(folder, name, number))
            except Exception as error:
                problem = error
        held, size, number = {}, 0, number + 1

    for key, tensor in tensors:
        value = whole(tensor.detach())
        if size and size + value.nbytes > (LIMIT if limit is None else limit):
            flush()
        if problem is None:
            held[key] = value.to("cpu", copy=True).contiguous()
            size += value.nbytes
    if held or number == 1:
        flush()
    if problem is not None:
        raise problem


def gather(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """The part of a process that writes nothing in :func:`write`."""
    for _, tensor in tensors:
        whole(tensor.detach())


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / (f"{name}.safetensors" if number == 1 else f"{name}-{number}.safetensors")


def _files(folder: Path, name: str) -> Iterator[Path]:
    number = 1
    while (file := _file(folder, name, number)).exists():
        yield file
        number += 1


def exists(folder: Path, name: str) -> bool:
    """Whether ``folder`` holds tensors called ``name``."""
    return _file(folder, name, 1).exists()


class Pieces:
    """The tensors called ``name`` in ``folder``, none of which is read before it is asked for."""

    def __init__(self, folder: Path, name: str, stack: contextlib.ExitStack):
        opened = [stack.enter_context(safe_open(file, "pt")) for file in _files(folder, name)]
        self._of: dict[str, Any] = {}
        for file in opened:
            self._of |= dict.fromkeys(file.keys(), file)

    @property
    def names(self) -> set[str]:
        """Their keys."""
        return set(self._of)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a whole tensor."""
        return tuple(self._of[key].get_slice(key).get_shape())

    def read(self, key: str, index: tuple[slice, ...] | None = None) -> Tensor:
        """A tensor in main memory, or the part of it at ``index``."""
        file = self._of[key]
        found: Tensor = file.get_tensor(key) if index is None else file.get_slice(key)[index]
        return found


@contextlib.contextmanager
def reading(folder: Path, name: str) -> Iterator[Pieces]:
    """While open, the tensors called ``name`` in ``folder``."""
    with contextlib.ExitStack() as stack:
        yield Pieces(folder, name, stack)


# -- shards ---------------------------------------------------------------------------------------------------------------
def index_of(tensor: Tensor) -> tuple[slice, ...] | None:
    """Where this process's shard of a DTensor lies in the whole; None for a tensor that is whole here.

    Along a dimension that is cut over n processes each has ⌈size / n⌉ rows, the last fewer or none, as
    ``torch.chunk`` cuts.
    """
    placements = getattr(tensor, "placements", ())
    if not any(p.is_shard() for p in placements):
        return None
    begin, size = [0] * tensor.dim(), list(tensor.shape)
    for dimension, placement in enumerate(placements):
        if placement.is_shard():
            mesh, d = tensor.device_mesh, placement.dim  # type: ignore[attr-defined]
            rows = -(-size[d] // mesh.size(dimension))
            first = min(mesh.get_local_rank(dimension) * rows, size[d])
            begin[d], size[d] = begin[d] + first, min(rows, size[d] - first)
    if tuple(size) != tuple(local(tensor).shape):
        raise RuntimeError(f"a shard of {tuple(tensor.shape)} is {tuple(local(tensor).shape)}, not {tuple(size)}")
    return tuple(slice(b, b + n) for b, n in zip(begin, size, strict=True))


@torch.no_grad()
def read_into(tensor: Tensor, pieces: Pieces, key: str) -> None:
    """Fill ``tensor``, of a DTensor this process's shard, with the one under ``key``.

    >>> import tempfile
    >>> folder, there = Path(tempfile.mkdtemp()), torch.zeros(2)
    >>> write(folder, "some", [("a", torch.ones(2))])
    >>> with reading(folder, "some") as some:
    ...     read_into(there, some, "a")
    >>> there
    tensor([1., 1.])
    """
    mine = local(tensor)
    if mine.numel():
        mine.copy_(pieces.read(key, index_of(tensor)))


def like(model: torch.Tensor, shard: Tensor) -> Tensor:
    """``shard``, this process's part of a tensor that is cut as the DTensor ``model`` is, as a DTensor."""
    if not hasattr(model, "placements"):
        return shard
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        shard.to(local(model).device),
        model.device_mesh,  # type: ignore[attr-defined]
        model.placements,
        run_check=False,
        shape=model.shape,
        stride=model.stride(),
    )
