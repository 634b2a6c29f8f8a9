"""Tables of several models on the same rows -> figures with intervals, and the findings that a verdict is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.audit import measure
from expunge.audit.material import Material
from expunge.audit.measure import COUNTERFACTUAL, Array, Rows
from expunge.audit.policy import Policy
from expunge.audit.verdict import Finding, finding
from expunge.evaluation.table import Collected
from expunge.stats import (
    Estimate,
    auc_estimate,
    bootstrap_mean,
    bounded_mean,
    of_row_means,
    remaining_share,
    tost_paired,
    tpr_at_fpr,
)

NAMES = {
    "recall": "recall of the answers",
    "otherwise": "recall of answers to questions in other words",
    "probability": "probability of the right answers",
    "extraction": "extraction strength",
    "preference": "preference for right over wrong answers",
}
IGNORANCE = 0.5  # of preference: right and wrong answers are equally likely
OF_TRAINING = ("preference",)  # figures that training on the other rows alone raises above those of a base
LEAST_KEPT = 0.1  # of a figure of the target, from which a share of it says something
FEWEST = 5  # rows of a figure that is compared
ROLES = ("target", "unlearned", "control")


@dataclass
class Compared:
    """What was found of the models: ``figures`` and ``membership`` for the record, ``findings`` for the verdict."""

    rows: dict[str, Rows]
    kept: dict[str, dict[str, Rows]]
    figures: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    membership: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    basis: str | None = None
    not_concluded: list[str] = field(default_factory=list)


def compare(
    tables: Mapping[str, Collected],
    fluency: Mapping[str, Mapping[str, Rows]],
    material: Material,
    policy: Policy,
    *,
    control: str | None,
    seed: int = 0,
) -> Compared:
    """Figures and findings of ``tables`` (roles :data:`ROLES`); ``control``: the control's kind, None without one."""
    n = len(material.forget)
    rows = {role: measure.knowledge(t) | {"otherwise": measure.otherwise(t, n)} for role, t in tables.items()}
    scored = {s.part for s in tables["target"].scores}
    kept: dict[str, dict[str, Rows]] = {
        part: {role: measure.knowledge(t, part) for role, t in tables.items()}
        for part in ("retain", "general")
        if part in scored
    }
    out = Compared(rows, kept)
    for part, of in {"forget": rows, **kept}.items():
        for role, figures in of.items():
            out.figures += [figure(part, name, role, values) for name, values in figures.items() if _usable(values)]
    for role, judged in fluency.items():
        out.figures += [figure(part, "fluency", role, f["fluency"]) for part, f in judged.items()]
    _gone(out, tables, policy, control, seed)
    _equivalent(out, policy, control)
    _kept(out, fluency, policy, seed, bool(material.retain), material.trained_on)
    _membership(out, tables, material, policy, control, seed)
    return out


def figure(part: str, name: str, role: str, values: Array) -> dict[str, Any]:
    """A mean with its interval, as the record holds it."""
    known = values[~np.isnan(values)]
    inside = bool(((known >= 0) & (known <= 1)).all())
    interval = bounded_mean(known) if inside else bootstrap_mean(known)
    return {"part": part, "name": name, "model": role, "value": float(known.mean()), "low": interval.low,
            "high": interval.high, "n": len(known)}  # fmt: skip


# -- is it gone? ----------------------------------------------------------------------------------------------------------
def ignorance(out: Compared, tables: Mapping[str, Collected], name: str, control: bool) -> Array:
    """(n,) of each row what a model that never saw it would have: the control's figure, else an estimate from the target's
    own answers; NaN where there is none.
    """
    n = len(out.rows["target"]["probability"])
    if control:
        return out.rows["control"].get(name, np.full(n, np.nan))
    if name in ("recall", "otherwise"):
        return measure.of_others(tables["target"], n)
    if name == "preference":
        return np.full(n, IGNORANCE)
    wrong = measure.wrong_rows(tables["target"], n)[name]
    return np.nan_to_num(wrong, nan=0.0)


def _gone(out: Compared, tables: Mapping[str, Collected], policy: Policy, control: str | None, seed: int) -> None:
    """The share that remains by each figure that the target has something of."""
    known, control_knows = [], []
    for name, said in NAMES.items():
        u, f = out.rows["unlearned"].get(name), out.rows["target"].get(name)
        if u is None or f is None:
            continue
        zero = ignorance(out, tables, name, control is not None)
        usable = ~(np.isnan(u) | np.isnan(f) | np.isnan(zero))
        if name == "otherwise":  # a question that the target itself does not answer says nothing
            usable &= f >= 0.5 * out.rows["target"].get("recall", np.ones(len(f)))
        if usable.sum() < min(FEWEST, len(u)):
            continue
        u, f, zero = u[usable], f[usable], zero[usable]
        advantage = of_row_means(lambda a, b: a - b, f, zero, seed=seed)
        if advantage.value < policy.target_knows or advantage.interval(policy.confidence).low <= 0:
            continue
        known.append(name)
        if control is not None:
            own = ignorance(out, tables, name, False)[usable]
            if not np.isnan(own).any():
                control_knows.append(remaining_share(zero, f, own, seed=seed).value)
        share = remaining_share(u, f, zero, seed=seed)
        limit, severe = limits(
            policy.remaining, policy.remaining_failed, 1.0, lenient=name in OF_TRAINING, control=control
        )
        out.findings.append(
            finding(
                f"remaining/{name}", "gone", "remaining", share, policy, limit=limit, severe=severe, better="lower",
                meaning=f"the share left of the {said}",
            )
        )  # fmt: skip
    if not known:
        out.basis = (
            "the target does not know the forget rows: by no figure is it "
            f"{policy.target_knows:g} above {'the control' if control else 'a guess'}, so nothing can be seen to go"
        )
    elif control_knows and np.median(control_knows) > policy.control_knows:
        out.basis = (
            f"the control ({control}) knows the forget rows: it has {np.median(control_knows):.0%} of what the target has, "
            "so it is no measure of ignorance"
        )
    if "preference" not in out.rows["target"]:
        out.not_concluded.append("whether the right answers are preferred to wrong ones: no row has a wrong answer")
    if control is None:
        out.not_concluded += [
            "whether the answers are those of a model that never saw the rows: none was given (--retrained, --base)",
            "whether forgetting went too far, which can be seen too: there is no control to compare with",
            "how much of what an attack brings back it would teach any model: there is no control to attack as well",
        ]
    elif control != "retrained":
        out.not_concluded += [
            f"whether it is as if retrained: the control is the {control}, which lacks the rest of the training data too",
            "whether right answers are preferred more, and rows told from unseen ones better, than training on the other "
            f"rows explains: a retrained model differs from the {control} as well, so only what is beyond the second limit "
            "counts",
        ]


def limits(limit: float, severe: float, beyond: float, *, lenient: bool, control: str | None) -> tuple[float, float]:
    """(limit, second limit) of a figure: (``severe``, ``beyond``) where it is ``lenient`` and no retrained model is the
    control.

    A base was not taught the other rows either, so a retrained model differs from it as well; by how much is not known.

    >>> limits(0.2, 0.5, 1.0, lenient=True, control="base"), limits(0.2, 0.5, 1.0, lenient=True, control="retrained")
    ((0.5, 1.0), (0.2, 0.5))
    """
    return (severe, beyond) if lenient and control != "retrained" else (limit, severe)


def _equivalent(out: Compared, policy: Policy, control: str | None) -> None:
    """Whether each figure is shown to be the control's."""
    for name, said in NAMES.items():
        u = out.rows["unlearned"].get(name)
        for other in ("target", "control"):
            o = out.rows.get(other, {}).get(name)
            if u is None or o is None:
                continue
            usable = ~(np.isnan(u) | np.isnan(o))
            if usable.sum() < 2:
                continue
            test = tost_paired(u[usable], o[usable], policy.equivalence_margin)
            spread = of_row_means(lambda a, b: a - b, u[usable], o[usable])
            interval = spread.interval(policy.confidence)
            out.differences.append({
                "part": "forget", "name": name, "from": other, "value": test.difference, "low": interval.low,
                "high": interval.high, "n": int(usable.sum()), "p": test.p, "equivalent": test.equivalent,
            })  # fmt: skip
            if other == "control":
                margin = policy.equivalence_margin
                found = finding(
                    f"equivalence/{name}", "gone", "equivalence", spread, policy, limit=margin, severe=2 * margin,
                    better="near", meaning=f"the difference of the {said} from the control's",
                    decides="equivalence" in policy.require and control == "retrained",
                )  # fmt: skip
                out.findings.append(found)


# -- is the rest still there? ---------------------------------------------------------------------------------------------
def _kept(
    out: Compared,
    fluency: Mapping[str, Mapping[str, Rows]],
    policy: Policy,
    seed: int,
    with_retain: bool,
    trained_on: bool | None,
) -> None:
    """What of the target's knowledge of other rows is kept, and whether answers are still language."""
    for part in out.kept:
        for name in ("probability", "recall"):
            u, f = (out.kept[part][role].get(name) for role in ("unlearned", "target"))
            if u is None or f is None:
                continue
            usable = ~(np.isnan(u) | np.isnan(f))
            if not usable.any() or f[usable].mean() < LEAST_KEPT:
                continue
            words = (
                f"the share kept of the {NAMES[name]} of {'rows to keep' if part == 'retain' else 'general questions'}"
            )
            out.findings.append(
                finding(
                    f"kept/{part}/{name}", "kept", "kept", _ratio(u[usable], f[usable], seed), policy, limit=policy.kept,
                    severe=policy.damaged, better="higher", meaning=words,
                    decides=part == "retain" or not with_retain,
                )
            )  # fmt: skip
    for part in ("forget", "retain", "general"):
        _fluent(out, part, fluency, policy, seed)
    if trained_on:
        out.not_concluded.append(
            "whether rows near those it was told to keep were kept: the run trained on the retain rows measured here; give "
            "others (--retain), or let runs keep some apart (--keep 0.95)"
        )
    if not with_retain:
        out.not_concluded.append(
            "whether what is near the forget rows was kept: no retain rows were given (--retain), only two dozen general "
            "questions were asked"
        )


def _fluent(out: Compared, part: str, fluency: Mapping[str, Mapping[str, Rows]], policy: Policy, seed: int) -> None:
    """Whether answers are still language: to forget rows against the control's, for what is made up is less likely than
    what was learnt; to others against the target's.
    """
    about = {"forget": "questions to forget", "retain": "questions to keep", "general": "general questions"}[part]
    against = "control" if part == "forget" and "control" in fluency else "target"
    pair = [fluency.get(role, {}).get(part) for role in ("unlearned", against)]
    if pair[0] is None or pair[1] is None:
        return
    u, f = pair[0]["fluency"], pair[1]["fluency"]
    if len(u) != len(f) or f.mean() < LEAST_KEPT:
        return
    limit, severe = policy.fluency, policy.fluency_damaged
    if part == "forget":
        limit, severe = policy.fluency_damaged, policy.fluency_damaged / 2
    out.findings.append(
        finding(
            f"fluency/{part}", "gone" if part == "forget" else "kept", "fluency", _ratio(u, f, seed), policy,
            limit=limit, severe=severe, better="higher",
            meaning=f"the fluency of answers to {about} against the {against}'s",
        )
    )  # fmt: skip


def _ratio(u: Array, f: Array, seed: int) -> Estimate:
    return of_row_means(lambda a, b: a / np.maximum(1e-3, b), u, f, seed=seed)


# -- membership -----------------------------------------------------------------------------------------------------------
def _membership(
    out: Compared, tables: Mapping[str, Collected], material: Material, policy: Policy, control: str | None, seed: int
) -> None:
    """Six scores, two-sided, against holdout rows or else against wrong answers; TPR at 1 % and 0.1 % beside."""
    beside = COUNTERFACTUAL if not material.holdout else "holdout"
    if beside == COUNTERFACTUAL and not material.wrong:
        out.not_concluded.append(
            "whether membership attacks see the rows: there are neither holdout rows (--holdout) nor wrong answers"
        )
        return
    reference = tables.get("control")
    scores = {role: measure.member_scores(t, beside, reference) for role, t in tables.items()}
    for name, (members, others) in scores["unlearned"].items():
        against = scores["control"].get(name) if control is not None and name != "reference" else None
        for role in tables:
            if name not in scores[role] or (role == "control" and name == "reference"):
                continue
            own = scores[role][name]
            estimate = auc_estimate(*own, seed=seed)
            interval = estimate.interval(policy.confidence)
            out.membership.append({
                "score": name, "model": role, "non_members": beside, "auc": estimate.value, "low": interval.low,
                "high": interval.high, "tpr_at_1_percent": tpr_at_fpr(*own), "tpr_at_0.1_percent": tpr_at_fpr(*own, 0.001),
                "members": len(own[0]), "others": len(own[1]),
            })  # fmt: skip
        if name == "reference" and control is not None:
            against = None
        spread = auc_estimate(members, others, against, seed=seed)
        distance = spread if against is not None else _from_half(spread)
        from_ = "the control's" if against is not None else "one half"
        margin = policy.membership_margin
        limit, severe = limits(margin, 2 * margin, 3 * margin, lenient=True, control=control)
        out.findings.append(
            finding(
                f"membership/{name}", "gone", "membership", distance, policy, limit=limit, severe=severe, better="near",
                meaning=f"the distance of the {name.replace('_', '-')} attack's AUC from {from_}",
                decides=against is not None,
            )
        )  # fmt: skip
    if control is None:
        out.not_concluded.append(
            f"whether the rows can still be told to be training data: they were told from {beside}"
            f"{' rows' if beside == 'holdout' else ''}, which may differ in other ways, and there is no control"
        )


def _from_half(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value - 0.5, estimate.n, estimate.drawn - 0.5, tuple(end - 0.5 for end in estimate.ends))


def _usable(values: Array) -> bool:
    return bool((~np.isnan(values)).any())
