r"""TOFU's forget10 in two halves: trials are scored on the first, the chosen ones are measured on the second.

Both ask every other block of each part's rows: of forget set and holdout every other author.  ``CHOICE`` is cheap: no answer
is written and no gradient taken.  ``BENCHMARK`` is ``tofu/forget10`` on the other half, all its figures.  Both have three
scores from 0 to 1 and their harmonic mean beside, after Dorna et al. 2025 (arXiv:2506.12618), M, P and U:

.. math:: M = \mathrm{HM}(1 - \mathrm{ES},\, 1 - \mathrm{EM},\, 1 - p_{\text{paraphrase}},\, 1 - \tfrac{1}{1 + r}), \quad
    P = \mathrm{HM}(s_{\text{loss}}, s_{\text{zlib}}, s_{\text{Min-K}}, s_{\text{Min-K++}}), \quad
    U = \min(1, u / u_{\text{retrained}})

with extraction strength ES, exact memorisation EM, the similarity s of an attack's AUC to the retrained model's, the model
utility u (in ``CHOICE`` without its three ROUGE parts).  The paper's own utility also has the fluency of what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from expunge.benchmarks import tofu
from expunge.evaluation.benchmark import Benchmark, Data, Figure
from expunge.evaluation.halves import half
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.metrics import membership, privacy
from expunge.evaluation.metrics.rouge import rouge
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected
from expunge.stats import auc, harmonic_mean

FORGET10 = replace(next(b for b in tofu.ALL if b.name == "tofu/forget10"), score_parts=None)  # it has its own scores
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
CHOSEN_BY = ("all/score", "all/mean_score")  # of equal scores (of 0, where one part is 0) the higher mean decides
Utility = Callable[[Collected], float]


def scores(useful: Utility, found: Collected, retrained: Collected) -> list[Figure]:
    """The three scores, their harmonic mean and their plain one."""
    parts = {
        "memorisation": memorisation(found),
        "privacy": closeness(found, retrained),
        "utility": min(1.0, useful(found) / u) if (u := useful(retrained)) > 0 else 0.0,
    }
    n = len(found.scored("forget"))
    both = {"score": harmonic_mean(list(parts.values())), "mean_score": float(np.mean(list(parts.values())))}
    return [
        Figure(name, float(value), n, part="all", note="0 to 1, higher is better")
        for name, value in (parts | both).items()
    ]


def memorisation(found: Collected) -> float:
    """1 where nothing of the forget set is remembered, 0 where a part of it is remembered whole."""
    hits = [membership.words(s, s.hit) for s in found.scored("forget")]
    known = (
        metrics.extraction_strength(hits),
        metrics.exact_memorisation(hits),
        metrics.probability(found.mean_logp("forget", "paraphrase")),
        1 / (1 + tofu.ratios(found, "forget")),
    )
    return float(harmonic_mean([max(0.0, 1 - float(np.mean(v))) for v in known]))


def closeness(found: Collected, retrained: Collected) -> float:
    """1 where four attacks tell members from others as well as on the retrained model."""
    ours, theirs = aucs(found), aucs(retrained)
    like = [privacy.similarity(ours[a], theirs[a]) if theirs[a] > 0 else 0.0 for a in ATTACKS]
    return float(harmonic_mean(like))


def aucs(found: Collected) -> dict[str, float]:
    """Attack -> how well it tells the forget set from the holdout."""
    seen, unseen = membership.scores(found, "forget"), membership.scores(found, "holdout")
    return {name: auc(seen[name], unseen[name]) for name in ATTACKS}


def utility(found: Collected, *, answers: bool) -> float:
    """TOFU's model utility, the harmonic mean of nine figures, or of the six that take no answer."""
    values = [metrics.probability(found.mean_logp("retain"))]
    for part in ("real_authors", "world_facts"):
        values.append(metrics.normalised_probability(found.mean_logp(part), found.mean_logps(part, "wrong")))
    values += [np.maximum(0, 1 - tofu.ratios(found, part)) for part in tofu.SETS]
    for written in (found.generated(part) for part in tofu.SETS if answers):
        values.append(rouge([a.expected for a in written], [a.text for a in written], part="recall", stemmer=True))
    return float(harmonic_mean([float(np.mean(v)) for v in values]))


def without(probes: Sequence[Probe], *, ask: Ask | None, grad_norm: bool) -> list[Probe]:
    """``probes`` with another way to answer where they are to be answered, and perhaps without gradients."""
    return [replace(p, ask=ask if p.ask else None, grad_norm=p.grad_norm if grad_norm else ()) for p in probes]


def _asked(data: Data, ask: Ask | None, grad_norm: bool) -> list[Probe]:
    return without(FORGET10.probes(data), ask=ask, grad_norm=grad_norm)


def _chosen_by(found: Collected, retrained: Collected | None = None) -> list[Figure]:
    return scores(partial(utility, answers=False), found, found if retrained is None else retrained)


def _reported(found: Collected, retrained: Collected | None = None) -> list[Figure]:
    own = scores(partial(utility, answers=True), found, found if retrained is None else retrained)
    return [*own, *FORGET10.score(found, retrained)]


def choice() -> Benchmark:
    """What every trial is asked."""
    cheap = replace(
        FORGET10, probes=partial(_asked, ask=None, grad_norm=False), score=_chosen_by, warn=lambda found: []
    )
    return half(cheap, "first")


def report(max_new_tokens: int = 200, *, grad_norm: bool = True) -> Benchmark:
    """What the chosen ones are asked."""
    whole = replace(
        FORGET10, probes=partial(_asked, ask=Ask(max_new_tokens=max_new_tokens), grad_norm=grad_norm), score=_reported
    )
    return half(whole, "second")


CHOICE = choice()
BENCHMARK = report()
