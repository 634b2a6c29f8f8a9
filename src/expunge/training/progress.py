"""One line of progress for a training run: the bar, and what the step's losses are."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback


class ProgressLine(TrainerCallback):
    """A bar over optimizer steps that shows each objective's loss and the multiplier; nothing is printed per step."""

    def __init__(self, what: str = "unlearning") -> None:
        self.bar: Any = None
        self.what = what

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar, on one process only."""
        if state.is_world_process_zero and not args.disable_tqdm:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.what, dynamic_ncols=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step on."""
        if self.bar:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the newest losses."""
        if self.bar and logs:
            shown = {k.removeprefix("loss/"): v for k, v in logs.items() if k.startswith("loss/") or k == "multiplier"}
            self.bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items()}, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar:
            self.bar.close()
