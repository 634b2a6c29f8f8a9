"""Tables of several models on the same rows -> figures with intervals, and the findings that a verdict is made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from expunge.audit import measure
from expunge.audit.compared import FEWEST, IGNORANCE, NAMES, OF_TRAINING, Compared, figure, limits
from expunge.audit.kept import add_kept
from expunge.audit.material import Material
from expunge.audit.measure import Array, Rows
from expunge.audit.membership import add_membership
from expunge.audit.policy import Policy
from expunge.audit.verdict import finding
from expunge.evaluation.table import Collected
from expunge.stats import of_row_means, remaining_share, tost_paired


def compare(
    tables: Mapping[str, Collected],
    fluency: Mapping[str, Mapping[str, Rows]],
    material: Material,
    policy: Policy,
    *,
    control: str | None,
    seed: int = 0,
) -> Compared:
    """Figures and findings of ``tables``, by role (:data:`~expunge.audit.compared.ROLES`); ``control``: the control's kind,
    None without one.
    """
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
    add_kept(out, fluency, policy, seed, bool(material.retain), material.trained_on)
    add_membership(out, tables, material, policy, control, seed)
    return out


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
                meaning=f"the share left of the {said}", decides=control is not None or name not in OF_TRAINING,
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
            "whether right answers are preferred more than training on the other rows explains: a retrained model is above "
            "one half, too",
        ]
    elif control != "retrained":
        out.not_concluded += [
            f"whether it is as if retrained: the control is the {control}, which lacks the rest of the training data too",
            "whether right answers are preferred more, and rows told from unseen ones better, than training on the other "
            f"rows explains: a retrained model differs from the {control} as well, so only what is beyond the second limit "
            "counts",
        ]


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


def _usable(values: Array) -> bool:
    return bool((~np.isnan(values)).any())
