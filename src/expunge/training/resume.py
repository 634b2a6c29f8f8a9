"""``transformers.Trainer`` whose checkpoints are whole or not there, and hold all that training needs to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, set_seed
from transformers.trainer import SCHEDULER_NAME

from expunge.errors import InputError
from expunge.training import checkpoints, moments, trained
from expunge.training.keeper import Keeper, Plan


class ResumableTrainer(Trainer):
    """Saves and loads through a :class:`~expunge.training.keeper.Keeper`; ``plan``: checkpoints of the run's own.

    ``shards``: the model in shards, if it is; its checkpoints are gathered: any number of processes goes on from one.
    """

    model: Any
    shards: Any = None
    warnings: list[str]
    lr_scheduler: Any

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
        if _internal_call and self.keeper.writes_weights():
            if self.args.should_save and output_dir:
                Path(output_dir).mkdir(parents=True, exist_ok=True)
        elif self.shards:
            whole = self.keeper.whole if self.keeper.whole is not None else self.shards.gathered()
            if self.args.should_save:
                with _as_model(self, whole):
                    self._save(output_dir)
        else:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As transformers; of a model in shards the keeper writes the optimizer's state."""
        if not self.shards:
            return super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As transformers, or in the form that a run in shards has written, or reads."""
        if checkpoint is None or not (self.shards or moments.exists(Path(checkpoint))):
            return super()._load_optimizer_and_scheduler(checkpoint)
        moments.load(Path(checkpoint), self.optimizer)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """As transformers; where the checkpoint is of another number of processes each begins anew, by seed and step."""
        n = self.args.world_size
        if checkpoint is None or (before := checkpoints.processes_of(Path(checkpoint))) == n:
            return super()._load_rng_state(checkpoint)
        set_seed(self.args.seed + self.state.global_step * n + self.args.process_index)
        if _drops_out(self.model):
            self.warnings.append(
                f"after step {self.state.global_step} dropout drew other numbers than it would have, for the run went on in "
                f"{n} process{'es' * (n > 1)} and had begun in {before}"
            )

    def _get_output_dir(self, trial: Any) -> str:
        """Where a checkpoint is being written, before it gets its name."""
        return str(self.keeper.into or super()._get_output_dir(trial))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights under their names in the model, where the checkpoint holds them so."""
        place = Path(resume_from_checkpoint)
        if trained.load(place, self.model if model is None else model):
            return
        if self.shards:
            raise InputError(
                f"{place} has no {trained.NAME}.safetensors, which a run in shards goes on from; use --fresh"
            )
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


@contextmanager
def _as_model(trainer: Any, model: Any) -> Iterator[None]:
    """While open, ``model`` is the one that ``trainer`` saves."""
    own, trainer.model = trainer.model, model
    try:
        yield
    finally:
        trainer.model = own


def _drops_out(model: Any) -> bool:
    """Whether ``model`` draws random numbers as it trains: dropout of its modules, or by its configuration."""
    config = model.config.get_text_config().to_dict() if hasattr(model, "config") else {}
    chosen = (value for key, value in config.items() if "drop" in key and isinstance(value, float))
    return any(chosen) or any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
