"""What the processes of DDP agree on in a step: whether memory ran out anywhere, and the mean of their gradients.

DDP's own reduction runs inside the backward pass, where a process that ran out of memory leaves the others waiting for it.
Here each process ends its passes alone, all say on the host how it went, and only then are gradients averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

MIB = 1 << 20
BUCKET = 25  # MiB that travel together, as in DDP


class Together:
    """The processes of a DDP run; ``bucket``: MiB of gradients that travel together."""

    def __init__(self, bucket: int | None = None) -> None:
        self.bytes = (bucket or BUCKET) * MIB
        on_host = "gloo" in str(distributed.get_backend())
        self._host = None if on_host else distributed.new_group(backend="gloo")  # None: the processes' usual group

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Of each flag whether it is set in any process; no device is waited for."""
        both = torch.tensor([int(flag) for flag in flags])
        distributed.all_reduce(both, op=distributed.ReduceOp.MAX, group=self._host)
        return [bool(n) for n in both.tolist()]

    @torch.no_grad()
    def mean(self, params: Sequence[nn.Parameter], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The mean of each gradient over the processes, written in place; None where no process has one."""
        somewhere = self.any([g is not None for g in grads])
        out = [
            (torch.zeros_like(p) if g is None else g) if there else None
            for p, g, there in zip(params, grads, somewhere, strict=True)
        ]
        for bucket in buckets([g for g in out if g is not None], self.bytes):
            whole = len(bucket) == 1 and bucket[0].is_contiguous()
            flat = bucket[0].view(-1) if whole else torch.cat([g.flatten() for g in bucket])
            distributed.all_reduce(flat)
            flat.div_(distributed.get_world_size())
            if not whole:
                parts = flat.split([g.numel() for g in bucket])
                torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(parts, bucket, strict=True)])
        return out


def buckets(tensors: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """``tensors`` in order, in groups of one dtype and device that are at most ``size`` bytes unless they are one tensor.

    >>> [len(b) for b in buckets([torch.zeros(3), torch.zeros(1), torch.zeros(9), torch.zeros(1).double()], 16)]
    [2, 1, 1]
    """
    bucket: list[Tensor] = []
    held: Any = None
    for tensor in tensors:
        kind, own = (tensor.dtype, tensor.device), tensor.numel() * tensor.element_size()
        if bucket and (kind != held or sum(t.numel() * t.element_size() for t in bucket) + own > size):
            yield bucket
            bucket = []
        bucket.append(tensor)
        held = kind
    if bucket:
        yield bucket
