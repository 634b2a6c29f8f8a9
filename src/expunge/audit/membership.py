"""Membership: whether the rows can be told from others that no model saw, in either direction."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.audit import measure
from expunge.audit.compared import Compared, limits
from expunge.audit.material import Material
from expunge.audit.measure import COUNTERFACTUAL
from expunge.audit.policy import Policy
from expunge.audit.verdict import finding
from expunge.evaluation.table import Collected
from expunge.stats import Estimate, auc_estimate, tpr_at_fpr


def add_membership(
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
