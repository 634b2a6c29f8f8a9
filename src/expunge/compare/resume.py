"""What is there already: whether a run in its folder is the one that is asked for, so that it need not be made again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import files, record
from expunge.bench.run import Ready
from expunge.bench.teach import MADE_FILE, identity, read_identity
from expunge.errors import InputError
from expunge.evaluation import evaluate
from expunge.evaluation.probe import Probe, fingerprint


def is_done(it: Ready, probes: Sequence[Probe], overwrite: bool) -> bool:
    """Whether a run with its figures is in its folder; InputError if they come from other settings, data or questions."""
    made = read_identity(it.folder / "run") if (it.folder / "run" / MADE_FILE).exists() else {}
    said = _figures(it.folder)
    if not made and not said:
        return False
    assert it.plan and it.method
    key = json.loads(json.dumps(identity(it.plan, "", it.rows, it.method)))
    old, data = made.get("settings", {}), made.get("data", {})
    wrong = [f"{k}: {a!r}, now {b!r}" for k, a, b in _differ(old, key["settings"])]
    wrong += [f"the {k} rows are others" for k, *_ in _differ(data, key["data"])]
    if said:
        asked = {k: v for k, v in dataclasses.asdict(it.how).items() if k not in evaluate.NOT_RECORDED}
        asked |= {"benchmark": it.chosen.name, "metrics": it.settings.metric}
        wrong += [f"{k}: {said.get(k)!r}, now {v!r}" for k, v in asked.items() if said.get(k) != v]
        if said.get("data", {}).get("fingerprint") != fingerprint(probes):
            wrong.append("the questions are others")
    if wrong and not overwrite:
        raise InputError(_other(it.folder, wrong[0]))
    return bool(said) and not wrong and (it.folder / "run" / record.FILE).exists()


def _differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What only one of two settings has, or each otherwise: its name, the old and the new value."""
    return [(k, old.get(k), new.get(k)) for k in {**new, **old} if old.get(k) != new.get(k)]


def _other(folder: Path, what: str) -> str:
    return f"{folder} holds a run with other settings ({what}); choose another --out, or make it again with --overwrite"


def same_models(it: Ready, prints: Mapping[str, str], overwrite: bool) -> bool:
    """Whether the figures that are there were made beside these models."""
    said = _figures(it.folder)
    for who in evaluate.BESIDE:
        if ((said.get(who) or {}).get("fingerprint")) != prints.get(who):
            if not overwrite:
                raise InputError(_other(it.folder, f"another {who} model"))
            return False
    return True


def _figures(folder: Path) -> dict[str, Any]:
    """What the figures in ``folder`` say; nothing where there are none."""
    file = folder / evaluate.FIGURES
    if not file.exists():
        return {}
    said = files.read_json(file, description="record", remedy=f"remove the folder {folder}, and its run is made again")
    return record.check_schema(said, file, unnamed=1)
