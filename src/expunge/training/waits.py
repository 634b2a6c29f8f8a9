"""A check on a CUDA device: an optimizer step in which the host waits for it is an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback


def forbid(device: torch.device, on: bool) -> None:
    """Let an operation that makes the host wait for ``device`` raise RuntimeError, or allow it again; of CUDA only."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error" if on else "default")


@contextmanager
def forbidden(device: torch.device) -> Iterator[None]:
    """While open, an operation that makes the host wait for ``device`` raises RuntimeError; see :func:`forbid`."""
    forbid(device, True)
    try:
        yield
    finally:
        forbid(device, False)


class ErrorWhereItWaits(TrainerCallback):
    """From the end of step ``after`` to the end of step ``until``, fetching batches included, an operation that makes the
    host wait for the device raises RuntimeError (``torch.cuda.set_sync_debug_mode("error")``).

    ``checked`` counts the steps that passed.  The log waits, so ``logging_steps`` must lie beyond ``until``; what is done
    once, in the first step or two (kernels are loaded, memory is reserved), is not looked at.  On other devices nothing is.

        with ErrorWhereItWaits(after=2, until=5) as check:
            trainer.add_callback(check)
            trainer.train()
        assert check.checked == 3
    """

    def __init__(self, after: int = 2, until: int = 5):
        self.after, self.until = after, until
        self.checked = 0
        self._device: torch.device | None = None  # while waiting for it is an error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, count and end."""
        self.checked += self._device is not None and args.device.type == "cuda"
        self._switch(args.device if self.after <= state.global_step < self.until else None)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End, whatever the number of steps."""
        self._switch(None)

    def __enter__(self) -> ErrorWhereItWaits:
        return self

    def __exit__(self, *error: object) -> None:
        """End, also where a step raised."""
        self._switch(None)

    def _switch(self, device: torch.device | None) -> None:
        if changed := device or self._device:
            forbid(changed, device is not None)
        self._device = device
