"""Attacks on the unlearned model and on the control: curves, what they bring back, and the findings of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    attacks: Sequence[Attack],
    subject: Subject,
    measure: Callable[[Any], Array],
    progress: Callable[[str], None],
    *,
    seeds: int = 1,
) -> dict[str, list[Point] | str]:
    """Attack name -> its points on ``subject``, or why there are none; one that fails does not end the audit.

    A random attack is carried out with each of ``seeds`` seeds, from the subject's on; a point has the mean over them.
    """
    out: dict[str, list[Point] | str] = {}
    for attack in attacks:
        progress(attack.name)
        if lacks := missing(attack, subject):
            out[attack.name] = f"it needs {LACKS.get(lacks[0], lacks[0])}"
            continue
        try:
            runs = [attack.run(replace(subject, seed=subject.seed + k), measure)
                    for k in range(seeds if attack.random else 1)]  # fmt: skip
        except InputError as error:
            out[attack.name] = str(error)
            continue
        points = over_seeds(runs)
        good = [p for p in points if len(p.known) == len(subject.forget) and np.isfinite(p.known).all()]
        out[attack.name] = good or "it gave no numbers"
    return out


def over_seeds(runs: Sequence[Sequence[Point]]) -> list[Point]:
    """The points of one attack with several seeds: each is the mean, and holds what each seed gave."""
    if len(runs) == 1:
        return list(runs[0])
    return [
        replace(points[0], known=np.mean(each, axis=0), by_seed=np.stack(each))
        for points in zip(*runs, strict=True)
        for each in [[p.known for p in points]]
    ]


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

    ``knows``: role -> ``probability`` and ``asked`` (n,) before any attack.  An attack that needs the target, as merging
    does, puts in what it brings back: it decides beside a control alone.
    """
    out, findings = [], []
    for one in attacked:
        said = described(one)
        out.append(said)
        if one.problem or not one.points.get("unlearned"):
            continue
        scale = scale_of(one.attack)
        target = knows["target"].get(scale)
        if target is None and "target" in one.points:
            target = cross_chosen([p.known for p in one.points["target"]])
        if target is None:
            said["problem"] = "it could not be carried out on the target, which it is measured against"
            continue
        before = {role: _before(p, knows[role].get(scale)) for role, p in one.points.items() if role != "target"}
        figures, deciding = recovered(one.points, before, target, policy, seed)
        said |= figures
        beyond = " beyond the control" if "control" in one.points else ""
        findings.append(
            finding(
                f"back/{one.attack.name}", "back", "back", deciding, policy, limit=policy.recovery,
                severe=policy.recovered, better="lower", meaning=f"what the attack {one.attack.name} brings back{beyond}",
                hidden=not one.attack.trains, decides="control" in one.points or "target" not in one.attack.needs,
            )
        )  # fmt: skip
    return out, findings


def described(one: Attacked) -> dict[str, Any]:
    """What the record says of an attack that gave no figures."""
    attack = one.attack
    return {
        "name": attack.name, "family": attack.family, "summary": attack.summary, "unit": attack.unit,
        "trains": attack.trains, "scale": scale_of(attack), "problem": one.problem, "curve": [], "recovery": None,
        "excess": None, "control_recovery": None, "half": None, "control_half": None, "n": None, "seeds": [],
    }  # fmt: skip


def recovered(
    points: Mapping[str, Sequence[Point]], before: Mapping[str, Array], target: Array, policy: Policy, seed: int
) -> tuple[dict[str, Any], Estimate]:
    """What the record says of what an attack brings back, and the estimate that decides: with a control the excess."""
    u, attacked = before["unlearned"], cross_chosen([p.known for p in points["unlearned"]])
    rho = recovery(attacked, u, target, seed=seed)
    said: dict[str, Any] = {"recovery": _said(rho, policy), "n": rho.n, "curve": _curve(points)}
    said["half"] = _half(points["unlearned"], u, target)
    said["seeds"] = by_seed(points, before, target, seed)
    if "control" not in points:
        return said, rho
    c, control = before["control"], cross_chosen([p.known for p in points["control"]])
    excess = excess_recovery(attacked, u, target, control, c, seed=seed)
    said["excess"] = _said(excess, policy)
    said["control_recovery"] = _said(recovery(control, c, target, seed=seed), policy)
    said["control_half"] = _half(points["control"], c, target)
    return said, excess


def by_seed(
    points: Mapping[str, Sequence[Point]], before: Mapping[str, Array], target: Array, seed: int
) -> list[dict[str, Any]]:
    """A line a seed of a random attack: recovery, and with a control the excess; none where there was one seed alone."""
    drawn = {role: [p.by_seed for p in some if p.by_seed is not None] for role, some in points.items()}
    several = {role: np.stack(of, axis=1) for role, of in drawn.items() if of}
    if "unlearned" not in several:
        return []
    u, out = before["unlearned"], []
    for k, curve in enumerate(several["unlearned"]):
        attacked = cross_chosen(curve)
        line = {"seed": seed + k, "recovery": recovery(attacked, u, target, seed=seed).value, "excess": None}
        if "control" in several:
            control = cross_chosen(several["control"][k])
            line["excess"] = excess_recovery(attacked, u, target, control, before["control"], seed=seed).value
        out.append(line)
    return out


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


def _half(points: Sequence[Point], before: Array, target: Array) -> float | None:
    """The strength that brings back half; None of a single one."""
    if len(points) < 2:
        return None
    return steps_to([p.strength for p in points], [_rho(p.known, before, target) for p in points])


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
