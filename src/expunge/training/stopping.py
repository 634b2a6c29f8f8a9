"""Stop where the forget set is as strange to the model as text it never saw.

Unlearning that goes further leaves a mark of its own: a retrained model knows the forget set as little as any other unseen
text, not less.  The level is the forget loss of the *target* model on a holdout set; the forget set's falls as the model
forgets.  A step whose own batch was down to the level calls for a look: the forget loss of the model as it is after that
step, over the forget set or, where that is long, over as many rows as sixteen steps take.  The run ends at a look that is
down to the level too.  So no lucky batch ends a run, a fast fall is seen one step later, and a look costs less than three
steps of two losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from expunge.data.example import evenly
from expunge.errors import InputError
from expunge.method import Activations, Method

CHECK_STEPS = 16  # steps whose rows a look takes at most: forward only, they cost less than three steps of two losses


def check(method: Method) -> None:
    """Raise InputError where the forget loss of ``method`` says nothing of how well a text is known."""
    forget = next(iter(method.objectives.values()))
    other = "leave holdout out, or take a method such as blur_margin, pdu or grad_diff"
    if method.negate is not None or forget.on != ("forget",) or forget.reference is not None or _steers(method):
        raise InputError(
            f"{method.name} cannot stop at a holdout set: its forget loss is not one of the text and the model alone; "
            f"{other}"
        )
    if not forget.measures_knowledge:
        raise InputError(
            f"{method.name} cannot stop at a holdout set: its forget loss is near 0 for text that is known by heart and for "
            f"text that is not known at all; {other}"
        )


def _steers(method: Method) -> bool:
    return any(isinstance(o.reference, Activations) for o in method.objectives.values())


def rows_to_check(forget_rows: int, rows_a_step: int) -> Sequence[int]:
    """Which forget rows a look takes: all, or as many as ``CHECK_STEPS`` steps take, from every part of them."""
    return evenly(range(forget_rows), CHECK_STEPS * rows_a_step)


def at_level_of(trainer: Any, holdout: Sequence[Any]) -> StopAtLevel:
    """The callback that ends the training of ``trainer`` where its forget set is as strange to the model as ``holdout``.

    Raises InputError where the start model knows the forget set no better than that.
    """
    check(trainer.method)
    name, objective = next(iter(trainer.method.objectives.items()))
    level = trainer.measure(name, holdout)
    if (start := trainer.measure(name)) <= level:
        raise InputError(
            f"the forget loss of the target model is {start:.4g} on the forget set and {level:.4g} on the holdout set: "
            "by this measure there is nothing to forget; leave holdout out, or look at the two sets"
        )
    args, forget = trainer.args, trainer.train_dataset.streams[objective.on[0]]
    step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    rows = [forget[i] for i in rows_to_check(len(forget), step)]

    def forget_loss() -> float:
        """Of the model as it now is; every process gets the same number."""
        value = torch.tensor(trainer.measure(name, rows), device=args.device)
        return float(trainer.accelerator.reduce(value, "mean"))

    return StopAtLevel(level, forget_loss, name)


class StopAtLevel(TrainerCallback):
    """Ends training at the first step whose logged forget loss and whose ``look()`` are both at most ``level``.

    ``name`` is the forget objective's; ``found`` is what the last look saw.  Nothing else is held, so a resumed run stops
    where an uninterrupted one does.
    """

    def __init__(self, level: float, look: Callable[[], float], name: str = "forget"):
        self.level = level
        self.look = look
        self.key = f"loss/{name}"
        self.found: float | None = None

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look where the log's last line calls for it."""
        if state.log_history[-1].get(self.key, math.inf) > self.level:
            return
        self.found = self.look()
        control.should_training_stop |= self.found <= self.level
