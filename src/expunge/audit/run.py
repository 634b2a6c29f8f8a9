"""An audit: rows and settings checked, models measured and attacked; then figures, verdict, record and pages."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import outputs
from expunge.attacks.attack import Attack
from expunge.audit import attacking, compare, describe, material, policy, verdict
from expunge.audit.compared import Compared
from expunge.audit.control import Control, control_of
from expunge.audit.material import Material
from expunge.audit.measure import Array, said_of
from expunge.audit.models import Measured, measure_all
from expunge.audit.results import Results
from expunge.audit.settings import Audit
from expunge.errors import InputError
from expunge.evaluation import table
from expunge.models.check import check_device


@dataclass(frozen=True)
class Result:
    """What an audit wrote: its record, and the folder."""

    record: dict[str, Any]
    folder: Path

    @property
    def word(self) -> str:
        """The verdict."""
        return str(self.record["verdict"]["word"])


@dataclass(frozen=True)
class Ready:
    """What was checked before a model is loaded."""

    settings: Audit
    policy: policy.Policy
    material: Material
    attacks: list[Attack]
    control: Control | None


def ready(settings: Audit, known_attacks: Mapping[str, Attack] | None = None) -> Ready:
    """All that needs no model, checked; raises InputError for what a person has to mend, and writes nothing."""
    if importlib.util.find_spec("rouge_score") is None:
        raise InputError("an audit needs the package rouge-score: pip install 'expunge[audit]'")
    thresholds = policy.read(settings.policy)
    attacks = attacking.chosen(settings, known_attacks)
    outputs.check(settings.out, describe.LAYOUT, inputs=inputs_of(settings), overwrite=settings.overwrite)
    check_device(settings.device)
    rows = material.read(settings, apart=attacking.needs(attacks, "known"))
    material.check_models(settings)
    return Ready(settings, thresholds, rows, attacks, control_of(settings))


def inputs_of(settings: Audit) -> dict[str, Any]:
    """What an audit reads, which its output must lie apart from."""
    return {
        "model": settings.model,
        "target": settings.target,
        "forget set": settings.forget,
        "retain set": settings.retain,
        "holdout set": settings.holdout,
        "retrained model": settings.retrained,
        "base": settings.base,
        "policy": settings.policy,
    }


def planned(settings: Audit) -> dict[str, Any]:
    """What :func:`run` would do."""
    checked = ready(settings)
    rows = checked.material
    counts = {
        "forget": len(rows.forget),
        "known": len(rows.known),
        "retain": len(rows.retain),
        "holdout": len(rows.holdout),
    }
    return {
        "model": settings.model,
        "target": settings.target,
        "control": f"{checked.control.name} ({checked.control.kind})" if checked.control else None,
        "data": counts,
        "attacks": [a.name for a in checked.attacks],
        "out": settings.out,
    }


def run(
    settings: Audit,
    *,
    command: str | None = None,
    known_attacks: Mapping[str, Attack] | None = None,
    measured: Measured | None = None,
) -> Result:
    """Carry out an audit; ``known_attacks``: in place of those there are.

    ``measured`` keeps what was measured of target and control, so that several audits which differ only in the unlearned
    model measure and attack those two once: give each the same dict, empty at first.

    Raises InputError for what a person has to mend, before a model is loaded wherever that is possible.
    """
    began = time.monotonic()
    checked = ready(settings, known_attacks)
    with outputs.claimed(settings.out, describe.LAYOUT, overwrite=settings.overwrite) as folder:
        outputs.retire(folder, describe.LAYOUT)
        return _carried_out(checked, folder, command, began, {} if measured is None else measured)


def _carried_out(checked: Ready, folder: Path, command: str | None, began: float, measured: Measured) -> Result:
    settings, control = checked.settings, checked.control
    results = measure_all(settings, checked.material, checked.attacks, control, folder, measured)
    found = compare.compare(
        results.tables,
        results.fluency,
        results.material,
        checked.policy,
        control=control.kind if control else None,
        seed=settings.seed,
    )
    attacks, findings = attacking.summarised(
        [by_role(a, results) for a in checked.attacks], known_before(results, found), checked.policy, settings.seed
    )
    if not findings:
        found.not_concluded.append("whether it comes back under attack: no attack was carried out (--attacks)")
    decided = verdict.decide([*found.findings, *findings], checked.policy, basis=found.basis)
    for role, one in results.tables.items():
        table.write(one, folder / describe.EVIDENCE / role)
    log = describe.record_of(
        settings,
        results,
        control,
        found,
        attacks,
        decided,
        checked.policy,
        command=command,
        seconds=time.monotonic() - began,
    )
    return Result(describe.write(log, folder), folder)


def known_before(results: Results, found: Compared) -> dict[str, dict[str, Array]]:
    """Role -> what is known of each forget row before any attack, in both measures of attacks."""
    rows = results.material.forget
    return {
        role: {
            "probability": found.rows[role]["probability"],
            "asked": attacking.asked_scores(rows, said_of(one, "forget")),
        }
        for role, one in results.tables.items()
    }


def by_role(attack: Attack, results: Results) -> attacking.Attacked:
    """The points of one attack on each model; the problem is that with the unlearned one."""
    found = {role: one.points[attack.name] for role, one in results.models.items() if attack.name in one.points}
    good = {role: points for role, points in found.items() if not isinstance(points, str)}
    problem = found.get("unlearned")
    return attacking.Attacked(attack, good, problem if isinstance(problem, str) else None)
