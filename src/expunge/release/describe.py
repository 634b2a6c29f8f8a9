"""The record of a release: the parts of ``run.json`` that only a release has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.models.lora import Adapter, Truncated, rank_of
from expunge.release.measure import Measurement
from expunge.release.settings import Release
from expunge.release.steps import Step
from expunge.unlearning import describe as about_run
from expunge.unlearning.rows import Data

PAPER = "arXiv:2509.14624"
SUMMARY = (
    "Trains a LoRA module on the forget set and subtracts a part of it from the weights, again and again; a module trained "
    "on the retain set is added, and the two are kept orthogonal."
)


def describe_method(settings: Release, retain: bool) -> dict[str, Any]:
    """The method, as in every record; ``retain``: whether there are retain rows."""
    objectives = {"forget": "nll"}
    if retain and settings.retain_coefficient:
        objectives |= {"retain": "nll"} | ({"orthogonality": "orthogonality"} if settings.orthogonality else {})
    weight = f" + {settings.orthogonality:g} × orthogonality" if "orthogonality" in objectives else ""
    return {
        "name": "release",
        "parameters": settings.parameters,
        "paper": PAPER,
        "status": "unreproduced",
        "summary": SUMMARY,
        "combiner": f"forget module: nll{weight}" + ("; retain module: nll" if "retain" in objectives else ""),
        "objectives": objectives,
    }


def describe_training(args: Any, past: Sequence[Step]) -> dict[str, Any]:
    """How the forget modules were trained; each module has a seed of its own, a function of the run's."""
    record = about_run.describe_training(args, past[-1].optimizer_steps)
    return {k: v for k, v in record.items() if k != "seed"}


def describe_data(settings: Release, raw: Mapping[str, Any], watched: Sequence[Any], data: Data) -> dict[str, Any]:
    """The sets, the utility rows among them."""
    plan = settings.run
    retain = plan.retain if plan.retain is not None else about_run.SELF_WRITTEN
    sets = {"forget": (plan.forget, raw["forget"])}
    sets |= {"retain": (retain, raw["retain"])} if "retain" in raw else {}
    sets |= {"utility": (settings.names.get(str(settings.utility), settings.utility), watched)} if watched else {}
    return {
        n: about_run.describe_data(source, rows, plan) | about_run.used(data, n) for n, (source, rows) in sets.items()
    }


def describe_release(
    past: Sequence[Step],
    kept_step: int,
    reason: str,
    settings: Release,
    measurement: Measurement,
    limit: float | None,
    lost: Truncated | None,
) -> dict[str, Any]:
    """The trajectory, the kept step with the reason, and the error of the adapter's lower rank."""
    return {
        "trajectory": [
            {"step": s.index, "figures": s.figures, "penalty": s.penalty, "seconds": s.seconds} for s in past
        ],
        "kept": kept_step,
        "stopped": reason,
        "forget_figure": "/".join(measurement.forget),
        "utility_figure": "/".join(measurement.utility) if measurement.utility else None,
        "better": measurement.better,
        "budget": None if limit is None else {"relative": settings.utility_budget, "limit": limit},
        "svd_error": lost and {"rank": settings.rank, "overall": lost.overall, "modules": dict(lost.modules)},
    }


def log(past: Sequence[Step]) -> list[dict[str, Any]]:
    """The training of all modules, one row after the other, numbered apart for retain and for forget modules; the retain
    modules' loss under its own name.
    """
    out: list[dict[str, Any]] = []
    count = {"retain": 0, "forget": 0}
    for row in (row for s in past for row in s.log):
        role = row["module"]
        count[role] += 1
        out.append({k.replace("/forget", f"/{role}"): v for k, v in row.items()} | {"step": count[role]})
    return out


def trainable(update: Adapter, r: int) -> int:
    """The parameters of one module, from an update that is one or two of them."""
    return sum(value.numel() for value in update.state.values()) * r // rank_of(update)


def warnings(settings: Release, retain: bool, measurement: Measurement, kept_step: int, cut_outside: bool) -> list[str]:
    """The warnings of the record; ``cut_outside``: the adapter of a lower rank is outside the budget."""
    messages = []
    if not retain and settings.retain_coefficient:
        messages.append("there are no retain rows, so there was no retain module, and nothing to be orthogonal to")
    if measurement.utility is None:
        messages.append(
            "nothing says how much use the model still is (no retain rows, no --utility), so no budget could stop the loop"
        )
    if kept_step == 0:
        messages.append(
            "the first step was outside the budget, so the result is the target unchanged; "
            "take smaller steps (forget_coefficient), or give a larger budget (utility_budget)"
        )
    if cut_outside:
        messages.append(f"cut to rank {settings.rank}, the result is outside the budget; give a larger rank, or none")
    return messages


def broke_down(kept_step: int, saved: Path) -> str:
    """The message for a release whose last step was not finite or could not be measured; ``kept_step`` is the result."""
    result = (
        f"step {kept_step} is saved in {saved}"
        if kept_step
        else f"no step was good, and {saved} is the target unchanged"
    )
    return (
        f"training broke down in step {kept_step + 1}: {result}; lower learning_rate, or forget_coefficient "
        "(the warnings say what was not finite)"
    )
