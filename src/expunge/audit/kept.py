"""Is the rest still there: what of the target's knowledge of other rows is kept, and whether answers are still language."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from expunge.audit.compared import LEAST_KEPT, NAMES, Compared
from expunge.audit.measure import Array, Rows
from expunge.audit.policy import Policy
from expunge.audit.verdict import finding
from expunge.stats import Estimate, of_row_means


def add_kept(
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
