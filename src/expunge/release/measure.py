"""What is measured after each step of a release, and whether the model is still inside its budget."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from expunge import models
from expunge.data import pieces, template
from expunge.errors import InputError
from expunge.release.settings import Release
from expunge.release.steps import Step
from expunge.unlearning.measure import evenly, measure
from expunge.unlearning.rows import Data, length
from expunge.unlearning.settings import Recipe

Figures = Mapping[str, Mapping[str, float]]
Seen = Callable[[Any], dict[str, Any]]  # model -> {"figures": …, "answers": …}


@dataclass(frozen=True)
class Look:
    """What is measured after each step, in place of what ``expunge run`` measures.

    ``measure(model)`` gives figures by part and name.  ``forget`` and ``utility`` say which (part, name) are the two that
    the trajectory is drawn with; the budget is on ``utility``, None for no budget.  ``better``: which way utility is better.
    ``name``: what ``measure`` asks, and how much of it; steps that were measured under another name are not gone on from.
    """

    measure: Callable[[Any], Figures]
    forget: tuple[str, str] = ("forget", "nll")
    utility: tuple[str, str] | None = ("retain", "nll")
    better: Literal["lower", "higher"] = "lower"
    name: str = ""


def standard(settings: Release, sets: Mapping[str, Any]) -> Look:
    """Which figures are watched where the user brings no measure: perplexity on the utility rows, else the retain loss."""
    watched = ("retain", "nll") if "retain" in sets else None
    return Look(lambda _: {}, utility=watched if settings.utility is None else ("utility", "perplexity"))


def measurer(look: Look | None, tokenizer: Any, data: Data, settings: Release, watched: Sequence[Any]) -> Seen:
    """What looks at a model: ``look``, or the figures of ``expunge run`` and the perplexity on the utility rows."""
    if look:
        return lambda net: {"figures": look.measure(net), "answers": {}}

    def seen(net: Any) -> dict[str, Any]:
        found = measure(net, tokenizer, data, settings.run)
        if watched:
            found["figures"]["utility"] = _perplexity(net, tokenizer, watched, settings)
        return found

    return seen


def _perplexity(net: Any, tokenizer: Any, rows: Sequence[Any], settings: Release) -> dict[str, float]:
    from expunge.evaluation.collect.one_pass import collect
    from expunge.evaluation.figures import figures, probes

    how: dict[str, Any] = {"max_length": length(settings.run), "chat_template": settings.run.chat_template}
    cut = [piece for row in rows for piece in pieces.cut(row, tokenizer, how["max_length"])]
    asked = probes("utility", evenly(cut, settings.run.eval_rows))
    found = figures(collect(net, tokenizer, asked, **how), "utility")
    return found | {"perplexity": math.exp(min(found["nll"], 700.0))}  # e^700 is near the largest float


def compared(settings: Release, seen: Seen, device: Any) -> dict[str, Any] | None:
    """The figures of a third model, if the user names one."""
    plan = settings.run
    if plan.compare_with is None:
        return None
    return seen(loaded(plan.compare_with, plan, device).model)


def loaded(name: str, plan: Recipe, device: Any) -> models.Loaded:
    """The model ``name`` in the number format of ``plan``, its tokenizer rendering as ``plan`` says."""
    found = models.load(
        name,
        dtype=getattr(torch, plan.loaded),
        device=plan.device or device,
        trust_remote_code=plan.trust_remote_code,
        attn=plan.attn,
    )
    template.use(found.tokenizer, plan.template_arguments if plan.chat_template else {})
    return found


def budget(start: Step, settings: Release, look: Look) -> float | None:
    """The worst value of the watched figure that is still inside the budget; None without one."""
    if look.utility is None or settings.utility_budget is None:
        return None
    sign = 1 if look.better == "lower" else -1
    value = _figure(start.figures, look.utility)
    return value + sign * settings.utility_budget * abs(value)  # a figure may be below 0, as a log-probability is


def stopped(past: Sequence[Step], settings: Release, look: Look, limit: float | None) -> tuple[int, str, int] | None:
    """None while there is a step to take, then (the step to keep, why it ended, the last step that counts)."""
    for step in past[1:]:
        if not step.figures:
            return step.index - 1, f"the model cannot be measured after step {step.index}", step.index
        if look.utility is not None and not inside(step.figures, look, limit):
            value = _figure(step.figures, look.utility)
            said = (
                f"{' '.join(look.utility)} is {value:.4g} after step {step.index}, and the budget ends at {limit:.4g}"
            )
            return step.index - 1, said, step.index
    if len(past) > settings.steps:
        return settings.steps, "all steps were taken", settings.steps
    return None


def inside(figures: Figures, look: Look, limit: float | None) -> bool:
    """Whether the watched figure is inside the budget; one that is no number is not."""
    if limit is None or look.utility is None:
        return True
    value = _figure(figures, look.utility)
    return value <= limit if look.better == "lower" else value >= limit


def _figure(figures: Figures, name: tuple[str, str]) -> float:
    try:
        return float(figures[name[0]][name[1]])
    except KeyError:
        raise InputError(f"what is looked at has no figure {' '.join(name)}; name one that `measure` gives") from None


def tell(step: Step, look: Look, settings: Release) -> None:
    """One line about a step on standard error."""
    from tqdm.auto import tqdm

    if str(settings.run.training.get("disable_tqdm", False)).lower() == "true" or not step.figures:
        return
    pairs = [name for name in (look.forget, look.utility) if name]
    said = ", ".join(f"{' '.join(name)} {_figure(step.figures, name):.4g}" for name in pairs)
    tqdm.write(f"step {step.index}: {said}", file=sys.stderr)
