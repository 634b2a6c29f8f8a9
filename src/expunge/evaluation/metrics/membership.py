"""The six membership scores of a model's answers, and their figures: shared by the benchmarks that have a holdout."""

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
    """(T,) without the end-of-turn token where there is one, as in OpenUnlearning for all but loss and zlib."""
    return values[:-1] if text.ends and len(values) > 1 else values


def scores(collected: Collected, part: str, reference: Collected | None = None) -> Mapping[str, Array]:
    """Score name -> (n,) of the answers of ``part``; reference and gradient norm if available."""
    rows = collected.scored(part)
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


def figures(collected: Collected, retrained: Collected | None, members: str, non_members: str) -> list[Figure]:
    """AUC and true positive rate at 1 % of each score; beside a retrained model, which also is the reference, PrivLeak and
    the similarity to its AUCs.
    """
    member_scores, non_member_scores = scores(collected, members, retrained), scores(collected, non_members, retrained)
    out, aucs = [], {}
    for name in member_scores:
        attack = privacy.attack(member_scores[name], non_member_scores[name])
        n = attack.n_members + attack.n_non_members
        aucs[name] = attack.auc
        note = "against the retrained model" if name == "reference" else MEMBERS
        out.append(
            Figure(f"mia_{name}_auc", attack.auc, n, attack.auc_interval.low, attack.auc_interval.high, members, note)
        )
        out.append(Figure(f"mia_{name}_tpr_at_1_percent", attack.tpr_at_1_percent, n, part=members))
    return out if retrained is None else out + _compared(aucs, retrained, members, non_members)


def _compared(aucs: Mapping[str, float], retrained: Collected, members: str, non_members: str) -> list[Figure]:
    member_scores, non_member_scores = scores(retrained, members), scores(retrained, non_members)
    retrained_attacks = {name: privacy.attack(member_scores[name], non_member_scores[name]) for name in member_scores}
    n = retrained_attacks["min_k"].n_members + retrained_attacks["min_k"].n_non_members
    is_certain = retrained_attacks["min_k"].auc == 1  # possible with a few rows; the other figures are still valid
    leak = float("nan") if is_certain else privacy.privleak(aucs["min_k"], retrained_attacks["min_k"].auc)
    note = "not defined: the retrained model's Min-K AUC is 1" if is_certain else "of Min-K"
    out = [Figure("privleak", leak, n, part=members, note=note)]
    for name, attack in retrained_attacks.items():
        if attack.auc > 0:
            similarity = privacy.similarity(aucs[name], attack.auc)
            out.append(
                Figure(f"mia_{name}_similarity", similarity, n, part=members, note="1: the retrained model's AUC")
            )
    return out
