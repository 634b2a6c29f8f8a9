"""The six membership scores of what was collected, and their figures: shared by the benchmarks that have a holdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.evaluation.benchmark import Figure
from expunge.evaluation.metrics import privacy
from expunge.evaluation.table import Collected, Scored

Array = NDArray[np.float64]
MEMBERS = "1: seen, 0.5: unseen"


def words(text: Scored, values: NDArray[Any]) -> NDArray[Any]:
    """(T,) without the end-of-turn token where there is one, as OpenUnlearning has it for all but loss and zlib."""
    return values[:-1] if text.ends and len(values) > 1 else values


def scores(found: Collected, part: str, reference: Collected | None = None) -> Mapping[str, Array]:
    """Score name -> (n,) of the answers of ``part``; reference and gradient norm where they can be had."""
    rows = found.scored(part)
    logp, inner = [s.logp for s in rows], [words(s, s.logp) for s in rows]
    mean, deviation = [words(s, s.vocab_mean) for s in rows], [words(s, s.vocab_std) for s in rows]
    out = {
        "loss": privacy.loss_score(logp),
        "zlib": privacy.zlib_score(logp, [s.text for s in rows]),
        "min_k": privacy.min_k(inner),
        "min_k_plus_plus": privacy.min_k_plus_plus(inner, mean, deviation),
    }
    if all(s.grad_norm is not None for s in rows):
        out["grad_norm"] = privacy.grad_norm_score([s.grad_norm or 0.0 for s in rows])
    if reference is not None:
        out["reference"] = privacy.reference_score(logp, -reference.mean_logp(part))
    return out


def figures(found: Collected, retrained: Collected | None, members: str, non_members: str) -> list[Figure]:
    """AUC and true positive rate at 1 % of each score; beside a retrained model, which also is the reference, PrivLeak and
    how like its AUCs these are.
    """
    seen, unseen = scores(found, members, retrained), scores(found, non_members, retrained)
    out, aucs = [], {}
    for name in seen:
        a = privacy.attack(seen[name], unseen[name])
        n = a.n_members + a.n_non_members
        aucs[name] = a.auc
        note = "against the retrained model" if name == "reference" else MEMBERS
        out.append(Figure(f"mia_{name}_auc", a.auc, n, a.auc_interval.low, a.auc_interval.high, members, note))
        out.append(Figure(f"mia_{name}_tpr_at_1_percent", a.tpr_at_1_percent, n, part=members))
    return out if retrained is None else out + _beside(aucs, retrained, members, non_members)


def _beside(aucs: Mapping[str, float], retrained: Collected, members: str, non_members: str) -> list[Figure]:
    seen, unseen = scores(retrained, members), scores(retrained, non_members)
    zero = {name: privacy.attack(seen[name], unseen[name]) for name in seen}
    n = zero["min_k"].n_members + zero["min_k"].n_non_members
    sure = zero["min_k"].auc == 1  # a handful of rows can do that: no reason to lose the other figures
    leak = float("nan") if sure else privacy.privleak(aucs["min_k"], zero["min_k"].auc)
    note = "not defined: the retrained model's Min-K AUC is 1" if sure else "of Min-K"
    out = [Figure("privleak", leak, n, part=members, note=note)]
    for name, a in zero.items():
        if a.auc > 0:
            like = privacy.similarity(aucs[name], a.auc)
            out.append(Figure(f"mia_{name}_similarity", like, n, part=members, note="1: the retrained model's AUC"))
    return out
