"""The quick form of an audit, with which ``expunge run`` ends: a few rows, nothing rewritten, nothing trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge import files, processes
from expunge.audit.run import Result, run
from expunge.audit.settings import make
from expunge.unlearning.settings import Recipe

FOLDER = "audit"  # beside run.json
ROWS = 12
SETTINGS = {"rows": ROWS, "attacks": "none", "rewrite": False, "wrong": 3, "max_new_tokens": 24}


def impossible(settings: Recipe) -> str | None:
    """Why a run of ``settings`` cannot end with an audit; None where it can."""
    if processes.count() > 1:
        return "it is carried out by one process"
    if settings.quantize:
        return "the target is held in 4 or 8 bits"
    if any(not isinstance(s, str | Path) for s in (settings.forget, settings.retain or "", settings.holdout or "")):
        return "the rows are in memory"
    return None


def values(settings: Recipe, folder: Path) -> dict[str, Any]:
    """The settings of the audit of a run that wrote ``folder``.

    The control is the model that the run was compared with, taken to be a retrained one; else the one that gave its level,
    which may be retrained and may be the one before fine-tuning: it is called the base, of which less is concluded.
    """
    path = files.read_json(folder / "run.json", description="record", remedy="").get("output") or {}
    return {
        **SETTINGS,
        "model": str(folder / str(path.get("path") or "model")),
        "target": settings.model,
        "forget": settings.forget,
        "retain": settings.retain,
        "general": settings.retain is None,
        "holdout": settings.holdout,
        "retrained": settings.compare_with,
        "base": settings.level,
        "out": str(folder / FOLDER),
        "seed": settings.seed,
        "limit": settings.limit,
        "max_length": settings.max_length,
        "chat_template": settings.chat_template,
        "template_arguments": settings.template_arguments,
        "columns": settings.columns,
        "assistant_turns": settings.assistant_turns,
        "device": settings.device,
        "dtype": settings.dtype,
        "trust_remote_code": settings.trust_remote_code,
        "overwrite": True,
    }


def audit(settings: Recipe, folder: Path, *, changes: Mapping[str, Any] | None = None) -> Result:
    """The quick audit of the run that wrote ``folder``, beside its record."""
    return run(make(values(settings, folder) | dict(changes or {}), "the audit"), command="expunge run")
