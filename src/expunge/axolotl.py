"""Unlearning under Axolotl: its configuration and its model, our rows and our trainer.

``plugins: [expunge.axolotl.UnlearningPlugin]`` and a section ``expunge`` (:class:`Unlearning`) in the configuration of
``axolotl train``.  Axolotl loads the model, with the adapter that it is asked for, and saves it; the rows are a forget and a
retain set in place of ``datasets``, and the trainer is an :class:`~expunge.training.trainer.UnlearningTrainer`.  Only
Axolotl loads this module.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from expunge.data import sources
from expunge.errors import InputError
from expunge.method import Method, build
from expunge.settings import checked
from expunge.training import like_trl
from expunge.training.trainer import UnlearningTrainer

if TYPE_CHECKING:
    BasePlugin = object
else:
    try:
        from axolotl.integrations.base import BasePlugin
    except ImportError:  # for who reads this module without Axolotl
        BasePlugin = object

OTHER_ROWS = (
    "datasets",
    "test_datasets",
    "pretraining_dataset",
    "streaming",
    "sample_packing",
    "rl",
)  # settings of Axolotl
OTHER_COLLATORS = ("data_collator", "eval_data_collator", "bench_data_collator", "dataset_tags", "eval_dataset")


class Unlearning(BaseModel):
    """The section ``expunge``: files of rows, and the method by name with its parameters.

    ``level``: for methods that end by themselves, the name of a model that never saw the forget rows.
    """

    model_config = ConfigDict(extra="forbid")
    forget: str
    retain: str | None = None
    method: str = like_trl.DEFAULT
    parameters: dict[str, Any] = {}
    level: str | None = None
    columns: dict[str, str] = {}
    chat_template: bool = True

    @property
    def files(self) -> dict[str, str]:
        """The files that are given, by stream."""
        return {"forget": self.forget} | ({"retain": self.retain} if self.retain else {})

    def built(self) -> Method:
        """The method; InputError where it reads more than rows and level."""
        method = build(self.method, self.parameters)
        like_trl.check_complete(method, self.files, self.level)
        return method


class Arguments(BaseModel):
    """What the plugin adds to the settings of Axolotl."""

    expunge: Unlearning | None = Field(None, description="What to forget: rows and method.")


class UnlearningPlugin(BasePlugin):
    """Forget and retain rows for Axolotl's ``datasets``, and the trainer for its own."""

    def get_input_args(self) -> str:
        """Where :class:`Arguments` is found."""
        return f"{__name__}.{Arguments.__name__}"

    def register(self, cfg: Any) -> None:
        """Check the section before anything is loaded, and fill in what Axolotl's own check asks for.

        Under Ray Axolotl calls it again in each worker, with what it checked.  Raises InputError for a section that is
        wrong, and for settings that bring other rows, or cut them otherwise.
        """
        section = section_of(cfg)
        section.built()
        for name in OTHER_ROWS:
            if cfg.get(name) and not (name == "datasets" and paths(cfg) == [section.forget]):  # as filled in below
                raise InputError(f"{name} does not go with this plugin: its rows are expunge.forget and expunge.retain")
        cfg["datasets"] = [{"path": section.forget}]
        cfg["val_set_size"] = 0

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> Any:
        """The rows by stream, and the steps of the run."""
        from axolotl.common.datasets import TrainDatasetMeta

        section = section_of(cfg)
        rows = {
            name: sources.load_rows(section.files[name], columns=section.columns) for name in section.built().streams
        }
        cfg["datasets"] = None  # a model card would name its files
        batch = cfg["micro_batch_size"] * cfg["gradient_accumulation_steps"] * (cfg.get("world_size") or 1)
        steps = cfg.get("max_steps") or math.ceil(math.ceil(len(rows["forget"]) / batch) * cfg["num_epochs"])
        return TrainDatasetMeta(train_dataset=rows, total_num_steps=steps)

    def get_trainer_cls(self, cfg: Any) -> type[UnlearningTrainer]:
        """A trainer with the method of the section."""
        return trainer_of(section_of(cfg), max_length=cfg.get("sequence_len") or 512)


def paths(cfg: Any) -> list[Any]:
    """Where the ``datasets`` of a configuration lie."""
    return [one.get("path") for one in cfg.get("datasets") or []]


def section_of(cfg: Any) -> Unlearning:
    """The section ``expunge`` of a configuration; InputError where it is missing or wrong."""
    section = cfg.get("expunge")
    if not section or not section.get("forget"):
        raise InputError("the configuration needs a section expunge with forget, a file of rows")
    return checked(Unlearning, dict(section), "the section expunge")


def trainer_of(section: Unlearning, *, max_length: int) -> type[UnlearningTrainer]:
    """A trainer with the method of ``section`` that is made as Axolotl makes its own."""

    class AxolotlUnlearningTrainer(UnlearningTrainer):
        """Takes what Axolotl brings for rows of one kind, and leaves it aside."""

        def __init__(self, *args: Any, **kwargs: Any):
            kept = {name: value for name, value in kwargs.items() if name not in OTHER_COLLATORS}
            super().__init__(
                *args,
                method=section.built(),
                level=section.level,
                max_length=max_length,
                chat_template=section.chat_template,
                **kept,
            )

    return AxolotlUnlearningTrainer
