"""Between main memory and an accelerator without either waiting for the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def to_device(value: Tensor, device: Any) -> Tensor:
    """``value``, made on the host, on ``device``: to a CUDA device from pinned memory, so that the host does not wait."""
    device = torch.device(device)
    if value.device.type != "cpu" or device.type == "cpu":
        return value.to(device)
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)


class Arriving:
    """A tensor on its way to the host, which goes on meanwhile; ``read`` and ``tensor`` wait until it is there.

    >>> Arriving(torch.tensor([1.0, 0.0])).read()
    [1.0, 0.0]
    """

    def __init__(self, value: Tensor):
        self._value = value.detach()
        self._event: Any = None
        if value.device.type == "cuda":
            self._value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self._value.copy_(value.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(value.device))

    def read(self) -> list[float]:
        """The numbers."""
        numbers: list[float] = self._arrived().tolist()
        return numbers

    def tensor(self) -> Tensor:
        """The same in main memory that is not pinned."""
        arrived = self._arrived()
        return arrived.cpu() if self._event is None else arrived.clone()

    def _arrived(self) -> Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._value


def numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """The numbers of ``scalars``: one copy to the host for each device.

    >>> numbers({"loss": torch.tensor(0.5), "weight": torch.tensor(2)})
    {'loss': 0.5, 'weight': 2.0}
    """
    by_device: dict[torch.device, list[str]] = {}
    for name, value in scalars.items():
        by_device.setdefault(value.device, []).append(name)
    on_host: dict[str, float] = {}
    for names in by_device.values():
        values = torch.stack([scalars[n].detach().double() for n in names])
        on_host |= dict(zip(names, values.tolist(), strict=True))
    return {name: on_host[name] for name in scalars}
