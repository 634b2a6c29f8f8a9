"""The record of a release: what ``run.json`` holds besides what every run writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.models.lora import Adapter, Truncated, rank_of
from expunge.release.measure import Look
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
    """The method as every record has it; ``retain`` says whether there are retain rows."""
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
    said = about_run.describe_training(args, past[-1].optimizer_steps)
    return {k: v for k, v in said.items() if k != "seed"}


def describe_data(settings: Release, raw: Mapping[str, Any], watched: Sequence[Any], data: Data) -> dict[str, Any]:
    """The sets, the utility rows among them."""
    plan = settings.run
    retain = plan.retain if plan.retain is not None else "written by the model itself"
    found = {"forget": (plan.forget, raw["forget"])}
    found |= {"retain": (retain, raw["retain"])} if "retain" in raw else {}
    found |= {"utility": (settings.names.get(str(settings.utility), settings.utility), watched)} if watched else {}
    return {
        n: about_run.describe_data(source, rows, plan) | about_run.used(data, n) for n, (source, rows) in found.items()
    }


def describe_release(
    past: Sequence[Step],
    kept: int,
    reason: str,
    settings: Release,
    look: Look,
    limit: float | None,
    lost: Truncated | None,
) -> dict[str, Any]:
    """The trajectory, which step is kept and why, and what the adapter's lower rank cost."""
    return {
        "trajectory": [
            {"step": s.index, "figures": s.figures, "penalty": s.penalty, "seconds": s.seconds} for s in past
        ],
        "kept": kept,
        "stopped": reason,
        "forget_figure": "/".join(look.forget),
        "utility_figure": "/".join(look.utility) if look.utility else None,
        "better": look.better,
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


def warnings(settings: Release, retain: bool, look: Look, kept: int, cut_outside: bool) -> list[str]:
    """What a reader of the record should know; ``cut_outside``: the adapter of a lower rank is outside the budget."""
    said = []
    if not retain and settings.retain_coefficient:
        said.append("there are no retain rows, so there was no retain module, and nothing to be orthogonal to")
    if look.utility is None:
        said.append(
            "nothing says how much use the model still is (no retain rows, no --utility), so no budget could stop the loop"
        )
    if kept == 0:
        said.append(
            "the first step was outside the budget, so the result is the target unchanged; "
            "take smaller steps (forget_coefficient), or give a larger budget (utility_budget)"
        )
    if cut_outside:
        said.append(f"cut to rank {settings.rank}, the result is outside the budget; give a larger rank, or none")
    return said


def broke_down(kept: int, saved: Path) -> str:
    """The sentence of a release whose last step was not finite or could not be measured; ``kept`` is the result."""
    what = f"step {kept} is saved in {saved}" if kept else f"no step was good, and {saved} is the target unchanged"
    return (
        f"training broke down in step {kept + 1}: {what}; lower learning_rate, or forget_coefficient (the warnings say what "
        "was not finite)"
    )
