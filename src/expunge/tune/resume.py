"""What is there already: whether a tuning in its folder is the one that is asked for, so that it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge import files, record
from expunge.compare.budget import Budget
from expunge.data import sources
from expunge.errors import InputError
from expunge.evaluation.probe import fingerprint
from expunge.tune import space
from expunge.tune.on_rows import Ready
from expunge.tune.settings import Tune
from expunge.tune.sweep import every

SETUP = "setup.json"
REMEDY = "choose another --out, or begin anew with --overwrite"
VOLATILE = (
    "out", "overwrite", "save_every", "fresh", "device", "attn", "title", "model_name", "data_name", "retrained_name",
    "compare_name",
)  # fmt: skip


def identity(settings: Tune, prepared: Ready, spent: Budget, spaces: Mapping[str, space.Space]) -> dict[str, Any]:
    """What decides every trial, for a tuning that goes on."""
    axes = settings.axes
    said = {
        "methods": {k: {"parameters": settings.methods[k], "search": {n: str(r) for n, r in of.items()}}
                    for k, of in spaces.items()},
        "budget": [spent.steps, spent.rows],
        "objective": settings.objective,
        "figures": [axes.forget, axes.better, axes.utility],
        "prune": [settings.prune, every(settings, spent)],
        "benchmark": settings.benchmark,
        "settings": {k: v for k, v in sorted(settings.shared.items()) if k not in VOLATILE},
        "rows": fingerprint(prepared.probes),
        "data": {name: sources.fingerprint(rows) for name, rows in prepared.rows.items()},
    }  # fmt: skip
    return dict(json.loads(json.dumps(files.strict(said), default=str)))


def setup_of(settings: Tune, folder: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """What ``setup.json`` in ``folder`` says, empty if it is not there.

    Where it is of another tuning it is empty with ``overwrite``, without it InputError.
    """
    file = folder / SETUP
    if not file.exists():
        return {}
    said = record.check_schema(files.read_json(file, description="record", remedy=REMEDY), file)
    old, key = filled(said.get("made_of") or {}), filled(key)
    for name in {**old, **key}:
        if old.get(name) != key.get(name):
            if settings.overwrite:
                return {}
            raise InputError(f"{folder} holds a tuning with other settings ({_difference(name, old, key)}); {REMEDY}")
    return said


def filled(key: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without settings that are empty: a table that says nothing is as good as none.

    >>> filled({"settings": {"lora": {}, "seed": 0, "dtype": None}, "methods": {"npo": {}}})
    {'settings': {'seed': 0}, 'methods': {'npo': {}}}
    """
    settings = {k: v for k, v in (key.get("settings") or {}).items() if v is not None and v not in ({}, [])}
    return {**key, **({"settings": settings} if "settings" in key else {})}


def methods_of(folder: Path) -> list[str]:
    """The methods of the tuning in ``folder``; none where ``setup.json`` does not say."""
    try:
        said = files.read_json(folder / SETUP, description="record", remedy=REMEDY)
    except InputError:
        return []
    return list((said.get("made_of") or {}).get("methods") or {})


def _difference(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first difference of two settings, in a few words."""
    a, b = old.get(name), new.get(name)
    if name in ("rows", "data"):
        return "the rows are others"
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        inner = next(k for k in {**a, **b} if a.get(k) != b.get(k))
        return f"{name}: {_difference(inner, a, b)}"
    return f"{name}: {a!r}, now {b!r}"


def same_models(settings: Tune, folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether target and reference are those of the trials that are there; InputError where not, but for ``overwrite``."""
    for who in ("target", "reference"):
        if (old.get(who) or {}).get("fingerprint") != (new.get(who) or {}).get("fingerprint"):
            if settings.overwrite:
                return False
            raise InputError(f"{folder} holds a tuning with another {who} model; {REMEDY}")
    return True
