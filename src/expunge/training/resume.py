"""``transformers.Trainer`` whose checkpoints are whole or not there, and hold all that training needs to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer

from expunge.errors import InputError
from expunge.training import trained
from expunge.training.keeper import Keeper, Plan


class ResumableTrainer(Trainer):
    """Saves and loads through a :class:`~expunge.training.keeper.Keeper`; ``plan``: checkpoints of the run's own."""

    model: Any

    def __init__(self, *args: Any, plan: Plan | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.keeper = Keeper(self, plan)
        self.add_callback(self.keeper)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; a signal ends it after a step that is saved, and is then raised as ``signals.Interrupted``."""
        with self.keeper.listening():
            return super().train(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """transformers' checkpoint with what is ours, whole or not there."""
        write = super()._save_checkpoint
        self.keeper.save(lambda: write(model, trial))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The whole model; of a checkpoint of the run's own only the weights that train are written."""
        if not (_internal_call and self.keeper.writes_weights()):
            return super().save_model(output_dir, _internal_call)
        if self.args.should_save and output_dir:
            Path(output_dir).mkdir(parents=True, exist_ok=True)

    def _get_output_dir(self, trial: Any) -> str:
        """Where a checkpoint is being written, before it gets its name."""
        return str(self.keeper.into or super()._get_output_dir(trial))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights under their names in the model, where the checkpoint holds them so."""
        if not trained.load(Path(resume_from_checkpoint), self.model if model is None else model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Raise InputError where a checkpoint lacks weights that train, which transformers only logs."""
        moving = {name for name, p in self.model.named_parameters() if p.requires_grad}
        if lacking := sorted(moving & set(load_result.missing_keys)):
            raise InputError(
                f"{self.keeper.begin} lacks the weight {lacking[0]} of the model; resume from another checkpoint, or leave "
                "resume_from_checkpoint out"
            )
        super()._issue_warnings_after_load(load_result)
