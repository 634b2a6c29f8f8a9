"""A check on a CUDA device: an optimizer step in which the host waits for it is an error."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback


class ErrorWhereItWaits(TrainerCallback):
    """From the end of step ``after`` to the end of step ``until``, fetching batches included, an operation that makes the
    host wait for the device raises RuntimeError (``torch.cuda.set_sync_debug_mode("error")``).

    ``checked`` counts the steps that passed.  The log waits, so ``logging_steps`` must lie beyond ``until``; what is done
    once, in the first step or two (kernels are loaded, memory is reserved), is not looked at.  On other devices nothing is.

        check = ErrorWhereItWaits(after=2, until=5)
        trainer.add_callback(check)
        trainer.train()
        assert check.checked == 3
    """

    def __init__(self, after: int = 2, until: int = 5):
        self.after, self.until = after, until
        self.checked = 0
        self._on = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, count and end."""
        if args.device.type != "cuda":
            return
        self.checked += self._on
        self._switch(self.after <= state.global_step < self.until)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End, whatever the number of steps."""
        if args.device.type == "cuda":
            self._switch(False)

    def _switch(self, on: bool) -> None:
        self._on = on
        torch.cuda.set_sync_debug_mode("error" if on else "default")
