"""Stop where the forget set is as strange to the model as text it never saw.

Unlearning that goes further leaves a mark of its own: a retrained model knows the forget set as little as any other unseen
text, not less.  The level is the forget loss of the *target* model on a holdout set; it falls as the model forgets, so a
run ends when its mean over the last pass of the forget set is down to the level.  The mean lags behind a loss that falls
fast: where a pass changes much, a smaller learning rate stops nearer to the level.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from expunge import losses
from expunge.errors import InputError
from expunge.method import Activations, Method


def check(method: Method) -> None:
    """Raise InputError where the forget loss of ``method`` says nothing of how well a text is known."""
    forget = method.objectives["forget"]
    other = "leave holdout out, or take a method such as blur_margin, pdu or grad_diff"
    if method.negate is not None or forget.on != ("forget",) or forget.reference is not None or _steers(method):
        raise InputError(
            f"{method.name} cannot stop at a holdout set: its forget loss is not one of the text and the model alone; "
            f"{other}"
        )
    if getattr(forget.loss, "func", forget.loss) in (losses.wga, losses.satimp):
        raise InputError(
            f"{method.name} cannot stop at a holdout set: its forget loss is near 0 for text that is known by heart and for "
            f"text that is not known at all; {other}"
        )


def _steers(method: Method) -> bool:
    return any(isinstance(o.reference, Activations) for o in method.objectives.values())


def window(forget_rows: int, rows_a_step: int, logging_steps: int) -> int:
    """Logged steps that make up one pass of the forget set."""
    return max(1, math.ceil(forget_rows / rows_a_step / logging_steps))


class StopAtLevel(TrainerCallback):
    """Ends training when the mean forget loss of the last ``window`` logged steps is at most ``level``.

    It reads the trainer's log and holds nothing, so a resumed run stops where an uninterrupted one does.
    """

    def __init__(self, level: float, window: int):
        self.level = level
        self.window = window

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the log's last lines."""
        found = [h["loss/forget"] for h in state.log_history if "loss/forget" in h][-self.window :]
        if len(found) == self.window and sum(found) / self.window <= self.level:
            control.should_training_stop = True
