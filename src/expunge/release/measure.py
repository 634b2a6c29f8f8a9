"""The measurements after each step of a release, and whether the model is still inside its budget."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from expunge import models
from expunge.data import pieces, template
from expunge.data.example import evenly
from expunge.errors import InputError
from expunge.release.settings import Release
from expunge.release.steps import Step
from expunge.unlearning.measure import measure
from expunge.unlearning.rows import Data, length
from expunge.unlearning.settings import Recipe

Figures = Mapping[str, Mapping[str, float]]
MeasureModel = Callable[[Any], dict[str, Any]]  # model -> {"figures": …, "answers": …}


@dataclass(frozen=True)
class Measurement:
    """The measurement after each step, instead of the one of ``expunge run``.

    ``measure(model)`` gives figures by part and name.  ``forget`` and ``utility``: the (part, name) of the two figures
    of the trajectory; the budget is on ``utility``, None for no budget.  ``better``: the better direction of utility.
    ``name``: a description of the measurement; steps that were measured under another name are not resumed from.
    """

    measure: Callable[[Any], Figures]
    forget: tuple[str, str] = ("forget", "nll")
    utility: tuple[str, str] | None = ("retain", "nll")
    better: Literal["lower", "higher"] = "lower"
    name: str = ""


def default_measurement(settings: Release, sets: Mapping[str, Any]) -> Measurement:
    """The watched figures without a measurement of the user's: perplexity on the utility rows, else the retain loss."""
    watched = ("retain", "nll") if "retain" in sets else None
    return Measurement(lambda _: {}, utility=watched if settings.utility is None else ("utility", "perplexity"))


def measure_function(
    custom: Measurement | None, tokenizer: Any, data: Data, settings: Release, watched: Sequence[Any]
) -> MeasureModel:
    """The measurement of a model: ``custom``, or the figures of ``expunge run`` and the perplexity on the utility rows."""
    if custom:
        return lambda net: {"figures": custom.measure(net), "answers": {}}

    def measure_model(net: Any) -> dict[str, Any]:
        measured = measure(net, tokenizer, data, settings.run.model_copy(update={"fluency_rows": 0}))
        if watched:
            measured["figures"]["utility"] = _perplexity(net, tokenizer, watched, settings)
        return measured

    return measure_model


def _perplexity(net: Any, tokenizer: Any, rows: Sequence[Any], settings: Release) -> dict[str, float]:
    from expunge.evaluation.collect.one_pass import collect
    from expunge.evaluation.figures import figures, probes

    options: dict[str, Any] = {"max_length": length(settings.run), "chat_template": settings.run.chat_template}
    cut = [piece for row in rows for piece in pieces.cut(row, tokenizer, options["max_length"])]
    rows_to_score = probes("utility", evenly(cut, settings.run.eval_rows))
    scores = figures(collect(net, tokenizer, rows_to_score, **options), "utility")
    return scores | {"perplexity": math.exp(min(scores["nll"], 700.0))}  # e^700 is near the largest float


def compared(settings: Release, measure_model: MeasureModel, device: Any) -> dict[str, Any] | None:
    """The figures of the model of ``compare_with``, if given."""
    plan = settings.run
    if plan.compare_with is None:
        return None
    return measure_model(loaded(plan.compare_with, plan, device).model)


def loaded(name: str, plan: Recipe, device: Any) -> models.Loaded:
    """The model ``name`` in the number format of ``plan``, its tokenizer rendering as ``plan`` says."""
    model = models.load(
        name,
        dtype=getattr(torch, plan.loaded),
        device=plan.device or device,
        trust_remote_code=plan.trust_remote_code,
        attn=plan.attn,
    )
    template.use(model.tokenizer, plan.template_arguments if plan.chat_template else {})
    return model


def budget(start: Step, settings: Release, measurement: Measurement) -> float | None:
    """The worst value of the watched figure that is still inside the budget; None without one."""
    if measurement.utility is None or settings.utility_budget is None:
        return None
    sign = 1 if measurement.better == "lower" else -1
    value = _figure(start.figures, measurement.utility)
    return value + sign * settings.utility_budget * abs(value)  # a figure may be below 0, as a log-probability is


def stopped(
    past: Sequence[Step], settings: Release, measurement: Measurement, limit: float | None
) -> tuple[int, str, int] | None:
    """None while there is a step to take, then (the step to keep, why it ended, the last step that counts)."""
    for step in past[1:]:
        if not step.figures:
            return step.index - 1, f"the model cannot be measured after step {step.index}", step.index
        if measurement.utility is not None and not inside(step.figures, measurement, limit):
            value = _figure(step.figures, measurement.utility)
            reason = (
                f"{' '.join(measurement.utility)} is {value:.4g} after step {step.index}, "
                f"and the budget ends at {limit:.4g}"
            )
            return step.index - 1, reason, step.index
    if len(past) > settings.steps:
        return settings.steps, "all steps were taken", settings.steps
    return None


def inside(figures: Figures, measurement: Measurement, limit: float | None) -> bool:
    """Whether the watched figure is inside the budget; NaN is not."""
    if limit is None or measurement.utility is None:
        return True
    value = _figure(figures, measurement.utility)
    return value <= limit if measurement.better == "lower" else value >= limit


def _figure(figures: Figures, name: tuple[str, str]) -> float:
    try:
        return float(figures[name[0]][name[1]])
    except KeyError:
        raise InputError(f"what is looked at has no figure {' '.join(name)}; name one that `measure` gives") from None


def print_step(step: Step, measurement: Measurement, settings: Release) -> None:
    """One line about a step on standard error."""
    from tqdm.auto import tqdm

    if str(settings.run.training.get("disable_tqdm", False)).lower() == "true" or not step.figures:
        return
    pairs = [name for name in (measurement.forget, measurement.utility) if name]
    figures = ", ".join(f"{' '.join(name)} {_figure(step.figures, name):.4g}" for name in pairs)
    tqdm.write(f"step {step.index}: {figures}", file=sys.stderr)
