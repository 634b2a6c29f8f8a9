"""Pruning: every few steps the score of a model that trains is reported, and a trial that falls behind is ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from expunge.data import template
from expunge.errors import InputError
from expunge.evaluation.probe import Probe
from expunge.models.tokenizer import load_tokenizer
from expunge.tune import figures
from expunge.tune.objective import Axes, default, record_of
from expunge.tune.settings import ROWS_AXES
from expunge.tune.study import Study
from expunge.unlearning.rows import length
from expunge.unlearning.settings import Recipe


class Pruned(Exception):
    """A trial that was ended after ``step`` steps."""

    def __init__(self, step: int):
        super().__init__(f"pruned after step {step}")
        self.step = step


@dataclass(frozen=True)
class Intermediate:
    """How a trial is measured while it trains: every ``every`` steps on ``probes``, beside the figures of ``target`` and
    ``reference`` on the same rows; ``file``: of the study.
    """

    file: Path
    label: str
    number: int
    every: int
    probes: Sequence[Probe]
    target: Sequence[Mapping[str, Any]]
    reference: Sequence[Mapping[str, Any]] | None

    @property
    def axes(self) -> Axes:
        """The probabilities of the two sets, which every run has, whatever the objective is."""
        return Axes(ROWS_AXES[0], ROWS_AXES[1] if any(p.part == "retain" for p in self.probes) else None)


class PruningCallback(TrainerCallback):
    """Reports ``score(model)`` every ``every`` steps but at the last; raises Pruned if ``report(step, score)`` is true."""

    def __init__(self, every: int, score: Callable[[Any], float], report: Callable[[int, float], bool]):
        self.every, self.score, self.report = every, score, report

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any = None, **kwargs: Any) -> None:
        """Measure and report where it is time."""
        step = state.global_step
        if step % self.every or step >= state.max_steps:
            return
        was_training = model.training
        value = self.score(model)
        model.train(was_training)
        if math.isfinite(value) and self.report(step, value):
            raise Pruned(step)


class IntermediateScore:
    """The default objective of a model as it is, on the probes of ``setup``."""

    def __init__(self, setup: Intermediate, settings: Recipe):
        self.setup, self.settings = setup, settings
        self.objective = default(setup.axes)

    @cached_property
    def tokenizer(self) -> Any:
        """The run's tokenizer, with the run's chat template."""
        settings = self.settings
        tokenizer = load_tokenizer(
            settings.model, trust_remote_code=settings.trust_remote_code, quantize=settings.quantize
        )
        template.use(tokenizer, settings.template_arguments if settings.chat_template else {})
        return tokenizer

    def __call__(self, model: Any) -> float:
        """The score in [0, 1]; NaN where the model gives no probability."""
        from expunge.evaluation.collect.one_pass import collect

        setup, settings = self.setup, self.settings
        how: dict[str, Any] = {"max_length": length(settings), "chat_template": settings.chat_template}
        try:
            collected = collect(model, self.tokenizer, setup.probes, alone=True, **how)
        except InputError:  # a log-probability that is no number: training finds that out
            return math.nan
        return self.objective(record_of(figures.of_rows(collected), setup.target, setup.reference))


def callback(setup: Intermediate, settings: Recipe) -> PruningCallback:
    """The callback of a trial's training under ``settings``."""
    study = Study(setup.file, setup.label, prune=True)
    return PruningCallback(
        setup.every, IntermediateScore(setup, settings), lambda step, value: study.report(setup.number, step, value)
    )
