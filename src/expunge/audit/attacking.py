"""Attacks on the unlearned model and on the control: curves, what they bring back, and the findings of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.attacks.attack import Attack, Point, Subject
from expunge.attacks.registry import ATTACKS, missing
from expunge.attacks.variants import plain
from expunge.audit.measure import Array
from expunge.audit.policy import Policy
from expunge.audit.settings import GROUPS, Audit
from expunge.audit.verdict import Finding, finding
from expunge.data.example import Row
from expunge.errors import InputError, nearest
from expunge.stats import Estimate, cross_chosen, excess_recovery, recovery, steps_to

SCALES = {
    "relearning": "probability",
    "weights": "probability",
    "asking": "asked",
}  # of families; others have their own
CHEAP = ("pruning", "quantisation", "merging")  # the beginnings of the names of `quick`


@dataclass(frozen=True)
class Attacked:
    """The points of one attack, by role; ``problem``: why it was not carried out."""

    attack: Attack
    points: Mapping[str, Sequence[Point]]
    problem: str | None = None


def chosen(settings: Audit, known: Mapping[str, Attack] | None = None) -> list[Attack]:
    """The attacks that ``settings`` names; InputError for one that there is not."""
    known = ATTACKS if known is None else known
    names = settings.attack_names
    if names[0] in GROUPS and len(names) == 1:
        quick = [a for a in known.values() if not a.trains and a.name.startswith(CHEAP)]
        return {"none": [], "quick": quick, "all": list(known.values())}[names[0]]
    for name in names:
        if name not in known:
            listed = ", ".join([*GROUPS, *known])
            raise InputError(f"there is no attack {name!r}{nearest(name, [*GROUPS, *known])}; there are {listed}")
    return [known[name] for name in dict.fromkeys(names)]


def needs(attacks: Sequence[Attack], name: str) -> bool:
    """Whether one of ``attacks`` needs the field ``name`` of its subject."""
    return any(name in a.needs or (name == "known" and a.trains) for a in attacks)


def carried_out(
    attacks: Sequence[Attack], subject: Subject, measure: Callable[[Any], Array], progress: Callable[[str], None]
) -> dict[str, list[Point] | str]:
    """Attack name -> its points on ``subject``, or why there are none; one that fails does not end the audit."""
    out: dict[str, list[Point] | str] = {}
    for attack in attacks:
        progress(attack.name)
        if lacks := missing(attack, subject):
            out[attack.name] = f"it needs {LACKS.get(lacks[0], lacks[0])}"
            continue
        try:
            points = attack.run(subject, measure)
        except InputError as error:
            out[attack.name] = str(error)
            continue
        good = [p for p in points if len(p.known) == len(subject.forget) and np.isfinite(p.known).all()]
        out[attack.name] = good or "it gave no numbers"
    return out


LACKS = {
    "known": "forget rows that are not measured (more rows, or a larger --known)",
    "retain": "retain rows that are not measured (--retain)",
    "unrelated": "text of another kind",
    "target": "the target",
    "retrained": "a retrained model (--retrained)",
}


def summarised(
    attacked: Sequence[Attacked], knows: Mapping[str, Mapping[str, Array]], policy: Policy, seed: int
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """What the record says of each attack, and the findings.

    ``knows``: role -> ``probability`` and ``asked`` (n,) before any attack.
    """
    out, findings = [], []
    for one in attacked:
        attack = one.attack
        scale = scale_of(attack)
        said: dict[str, Any] = {
            "name": attack.name, "family": attack.family, "summary": attack.summary, "unit": attack.unit,
            "trains": attack.trains, "scale": scale, "problem": one.problem, "curve": [], "recovery": None, "excess": None,
            "control_recovery": None, "half": None, "control_half": None, "n": None,
        }  # fmt: skip
        out.append(said)
        if one.problem or not one.points.get("unlearned"):
            continue
        values = {role: cross_chosen([p.known for p in points]) for role, points in one.points.items()}
        target = knows["target"].get(scale, values.get("target"))
        if target is None:
            said["problem"] = "it could not be carried out on the target, which it is measured against"
            continue
        before = {role: _before(p, knows[role].get(scale)) for role, p in one.points.items() if role != "target"}
        strengths = [p.strength for p in one.points["unlearned"]]
        u, f = before["unlearned"], target
        rho = recovery(values["unlearned"], u, f, seed=seed)
        said |= {"recovery": _said(rho, policy), "n": rho.n}
        said["curve"] = _curve(one.points)
        gains = [_rho(p.known, u, f) for p in one.points["unlearned"]]
        said["half"] = steps_to(strengths, gains) if len(strengths) > 1 else None
        deciding: Estimate = rho
        if "control" in values:
            c = before["control"]
            deciding = excess_recovery(values["unlearned"], u, f, values["control"], c, seed=seed)
            said["excess"] = _said(deciding, policy)
            said["control_recovery"] = _said(recovery(values["control"], c, f, seed=seed), policy)
            control_gains = [_rho(p.known, c, f) for p in one.points["control"]]
            said["control_half"] = steps_to([p.strength for p in one.points["control"]], control_gains)
        beyond = " beyond the control" if "control" in values else ""
        findings.append(
            finding(
                f"back/{attack.name}", "back", "back", deciding, policy, limit=policy.recovery, severe=policy.recovered,
                better="lower", meaning=f"what the attack {attack.name} brings back{beyond}", hidden=not attack.trains,
            )
        )  # fmt: skip
    return out, findings


def scale_of(attack: Attack) -> str:
    """What an attack is measured in: ``probability`` of the answer, what is ``asked`` (the words of the answer that the
    question does not hold), or its ``own``, which it then has to be carried out on the target for.
    """
    return "own" if attack.name == "multiple-choice" else SCALES.get(attack.family, "own")


def asked_scores(rows: Sequence[Row], said: Mapping[int, str]) -> Array:
    """(n,) what answers ``said`` to the questions as they are score as in attacks that ask; 0 where there is none."""
    out = np.zeros(len(rows))
    for one in plain(Subject(None, None, rows)):
        out[one.index] = one.score(said.get(one.index, ""))
    return out


def _before(points: Sequence[Point], known: Array | None) -> Array:
    """What is known before the attack: its own point of strength 0 where it has one, else ``known``."""
    zero = next((p.known for p in points if p.strength == 0), None)
    if zero is not None:
        return np.asarray(zero)
    return np.asarray(points[0].known if known is None else known)


def _rho(attacked: Array, before: Array, target: Array) -> float:
    return float((attacked.mean() - before.mean()) / max(0.1, target.mean() - before.mean()))


def _curve(points: Mapping[str, Sequence[Point]]) -> list[dict[str, Any]]:
    """A line a strength: what each model knows there on average."""
    out = []
    control = {p.strength: float(np.mean(p.known)) for p in points.get("control", ())}
    for p in points["unlearned"]:
        out.append({"strength": p.strength, "label": p.label, "unlearned": float(np.mean(p.known)),
                    "control": control.get(p.strength)})  # fmt: skip
    return out


def _said(estimate: Estimate, policy: Policy) -> dict[str, float]:
    interval = estimate.interval(policy.confidence)
    return {"value": estimate.value, "low": interval.low, "high": interval.high}
