"""The record of a comparison, ``compare.json``: what was run, and each run's figures.  It quotes none of the data."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import __version__, record
from expunge.bench.run import Ready
from expunge.compare.budget import Budget
from expunge.compare.settings import Compare, Trial
from expunge.training.arguments import parse


def full_record(settings: Compare, first: Ready, spent: Budget, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds for all runs, and the runs."""
    forget, utility = settings.figures
    shared, how = settings.shared, first.how
    plan = first.plan
    assert plan
    return {
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "benchmark": first.chosen.name,
        "paper": first.chosen.paper,
        "forget_figure": forget,
        "forget_better": settings.forget_better,
        "utility_figure": utility,
        "budget": {"steps": spent.steps, "rows": spent.rows},
        "adapter": plan.adapter,
        "lora": plan.lora.model_dump() if plan.adapter else None,
        "training": _training(shared.get("training", {})),
        "rows": {name: len(rows) for name, rows in first.rows.items()},
        "seeds": settings.seeds,
        "unequal_trials": settings.unequal_trials,
        "limit": how.limit,
        "dtype": how.dtype,
        "max_length": how.max_length,
        "chat_template": how.chat_template,
        "backend": how.backend,
        "runs": list(runs),
        "warnings": _warnings(runs, spent),
        "versions": record.versions(),
        "platform": platform.platform(),
    }


def run(trial: Trial, it: Ready, said: Mapping[str, Any], log: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """One run: ``said`` its figures.json, ``log`` its run.json.

    ``seconds``: of the optimizer steps alone, of the run with all that is around them, and of asking the unlearned model.
    """
    return _named(trial, it, out) | {
        "done": True,
        "method": {k: log["method"].get(k) for k in ("name", "parameters", "paper", "status")},
        "learning_rate": log["training"].get("learning_rate"),
        "steps": log["training"].get("stopped_after", log["training"]["max_steps"]),
        "tokens": log.get("tokens"),
        "seconds": {
            "steps": sum(s.get("seconds") or 0.0 for s in log["steps"]),
            "run": log["seconds"],
            "evaluation": said["seconds"],
        },
        "device": log.get("device"),
        "warnings": log.get("warnings") or [],
        "versions": said["versions"] | {"expunge": said.get("expunge")},
        "fingerprint": said["model"]["fingerprint"],
        "figures": said["figures"],
        "record": (it.folder / "run" / record.FILE).relative_to(out).as_posix(),
    }


def failed(trial: Trial, it: Ready, sentence: str, out: Path) -> dict[str, Any]:
    """A run that came to nothing, and why."""
    assert it.method
    made = {"name": it.method.name, "parameters": dict(it.method.parameters)}
    return _named(trial, it, out) | {"done": False, "method": made, "said": sentence, "figures": []}


def _named(trial: Trial, it: Ready, out: Path) -> dict[str, Any]:
    return {
        "name": trial.name,
        "label": trial.label,
        "shown": trial.shown,
        "choice": dict(trial.choice),
        "given": dict(it.settings.run.get("parameters", {})),
        "seed": trial.seed,
        "training": _training(it.settings.run.get("training", {})),
        "folder": it.folder.relative_to(out).as_posix(),
    }


def _training(given: Mapping[str, Any]) -> dict[str, Any]:
    return {k: parse(k, v) for k, v in sorted(given.items())}


def _warnings(runs: Sequence[Mapping[str, Any]], spent: Budget) -> list[str]:
    """What a reader has to know who takes the runs for equal."""
    kinds = {tuple(sorted((k, str(v)) for k, v in r["versions"].items())) for r in runs if r["done"]}
    where = {r["device"] for r in runs if r["done"]}
    out = (
        ["The runs were made with different versions of the software; each run's record says which."]
        if len(kinds) > 1
        else []
    )
    out += ["The runs were made on different devices; each run's record says where."] if len(where) > 1 else []
    said: dict[str, list[str]] = {}
    for r in runs:
        for warning in r.get("warnings") or []:
            said.setdefault(warning, []).append(r["name"])
    out += [f"{', '.join(names) if len(names) < len(runs) else 'all runs'}: {w}" for w, names in said.items()]
    early = [f"{r['name']} after {r['steps']}" for r in runs if r["done"] and r["steps"] < spent.steps]
    return out + ([f"Not every run took all {spent.steps} steps; stopped: {', '.join(early)}."] if early else [])
