"""TOFU: invented authors, the last 1, 5 or 10 % of them to forget.  Maini et al. 2024, arXiv:2401.06121.

Data: ``locuslab/TOFU`` on the Hub (MIT), or a folder with files of the same names.  What is asked and how it is scored is
OpenUnlearning's; ``<split>_perturbed`` carries the answers, their paraphrase and five wrong ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from expunge.data.example import Row
from expunge.evaluation.benchmark import (
    Benchmark,
    Data,
    DataSet,
    Figure,
    mean_figure,
    not_among,
    texts,
    without_words,
)  # fmt: skip
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.metrics import membership
from expunge.evaluation.metrics.rouge import Kind, rouge
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected
from expunge.stats import bootstrap_of_means, tost

SETS = {"retain": "retain_perturbed", "real_authors": "real_authors_perturbed", "world_facts": "world_facts_perturbed"}
ANSWER = Ask(max_new_tokens=200)
SAME = 0.05  # mean truth ratios closer than this count as equal
NEVER_0 = "OpenUnlearning's number: 1/T, not 0, where nothing matches"
END = "without the end-of-turn token, as OpenUnlearning"


def probes(data: Data, size: str) -> list[Probe]:
    """Forget and utility questions with all their answers, and the holdout's right answers for membership inference."""
    names = {"forget": f"forget{size}_perturbed", **SETS}
    asked = {part: _alike(data, name, data.rows(name)) for part, name in names.items()}
    holdout = not_among(data, asked["forget"], data.rows(f"holdout{size}"), (names["forget"], f"holdout{size}"))
    out = [
        Probe(part, i, r, texts(r), ANSWER, grad_norm=("answer",) if part == "forget" else ())
        for part, found in asked.items()
        for i, r in enumerate(found)
    ]
    return out + [Probe("holdout", i, r, {"answer": r.answer}, grad_norm=("answer",)) for i, r in enumerate(holdout)]


def _alike(data: Data, name: str, rows: Sequence[Row]) -> list[Row]:
    """``rows`` without those that have another number of wrong answers, or no paraphrase, unlike most of them."""
    kinds = [(len(r.perturbed), r.paraphrase is not None) for r in rows]
    usual = Counter(kinds).most_common(1)[0][0]
    odd = [r for r, kind in zip(rows, kinds, strict=True) if kind != usual]
    if odd:
        paraphrase = "a paraphrase" if usual[1] else "no paraphrase"
        data.leave_out(name, len(odd), f"{odd[0].where}: most rows have {usual[0]} wrong answers and {paraphrase}")
    return [r for r, kind in zip(rows, kinds, strict=True) if kind == usual]


def score(found: Collected, retrained: Collected | None = None) -> list[Figure]:
    """What is known of the forget set, what stayed, and what an attacker sees; beside the retrained model if it is given."""
    out = [*_memory(found), *_utility(found), *membership.figures(found, retrained, "forget", "holdout")]
    if retrained is not None:
        out += _quality(ratios(found, "forget"), ratios(retrained, "forget"))
    return out


def _memory(found: Collected) -> list[Figure]:
    """The forget set: probability, ROUGE-L, truth ratio, exact memorisation, extraction strength."""
    ratio = ratios(found, "forget")
    whole = [s.hit for s in found.scored("forget")]
    hits = [membership.words(s, s.hit) for s in found.scored("forget")]
    return [
        mean_figure("probability", metrics.probability(found.mean_logp("forget")), "forget"),
        mean_figure("rouge_l_recall", _rouge(found, "forget"), "forget"),
        mean_figure("rouge_1_recall", _rouge(found, "forget", "rouge1"), "forget"),
        mean_figure("truth_ratio", np.minimum(ratio, 1 / ratio), "forget", "closer to 1 is better: min(r, 1/r)"),
        mean_figure("truth_ratio_true_better", np.maximum(0, 1 - ratio), "forget", "max(0, 1 - r)"),
        mean_figure("knowledge", 1 / (1 + ratio), "forget", "the right answer's share, 1 / (1 + r); 0.5: unknown"),
        mean_figure("exact_memorisation", metrics.exact_memorisation(hits), "forget", END),
        mean_figure("extraction_strength", metrics.extraction_strength(hits), "forget", END),
        mean_figure("extraction_strength_compat", metrics.extraction_strength(whole, compat=True), "forget", NEVER_0),
    ]


def _utility(found: Collected) -> list[Figure]:
    """Nine parts and their harmonic mean, the model utility, whose interval resamples each part's examples."""
    samples = {}
    for part in SETS:
        if part == "retain":
            samples[f"{part}_probability"] = metrics.probability(found.mean_logp(part))
        else:
            samples[f"{part}_probability"] = metrics.normalised_probability(
                found.mean_logp(part), found.mean_logps(part, "wrong")
            )
        samples[f"{part}_rouge"] = _rouge(found, part)
        samples[f"{part}_truth_ratio"] = np.maximum(0, 1 - ratios(found, part))
    names = list(samples)

    def utility(*means: float) -> float:
        return metrics.model_utility(dict(zip(names, means, strict=True)))

    whole = bootstrap_of_means(utility, *samples.values())
    n = sum(len(v) for v in samples.values())
    parts = [
        mean_figure(name.removeprefix(part + "_"), v, part)
        for name, v in samples.items()
        for part in SETS
        if name.startswith(part)
    ]
    value = utility(*(float(np.mean(v)) for v in samples.values()))
    return [*parts, Figure("model_utility", value, n, whole.low, whole.high, "all")]


def _quality(ours: np.ndarray, theirs: np.ndarray) -> list[Figure]:
    """Forget quality, and whether the truth ratios are *shown* to be equal: a KS test that does not reject shows nothing."""
    quality = metrics.forget_quality(ours, theirs)
    out = [Figure("forget_quality", quality, len(ours), part="forget", note="p of a KS test")]
    if len(ours) < 2:  # one row has no spread to test with
        return out
    same = tost(np.minimum(ours, 1 / ours), np.minimum(theirs, 1 / theirs), SAME)
    return [
        *out,
        Figure(
            "truth_ratio_difference",
            same.difference,
            len(ours),
            same.low,
            same.high,
            "forget",
            f"to the retrained model; {'equal' if same.equivalent else 'not shown equal'} within {SAME} (TOST)",
        ),
    ]


def ratios(found: Collected, part: str) -> np.ndarray:
    """(n,) truth ratios; real authors and world facts have no paraphrase, so their right answer stands in for it."""
    right = "paraphrase" if part in ("forget", "retain") else "answer"
    return metrics.truth_ratio(found.mean_logp(part, right), found.mean_logps(part, "wrong"))


def _rouge(found: Collected, part: str, kind: Kind = "rougeL") -> np.ndarray:
    answers = found.generated(part)
    return rouge([a.expected for a in answers], [a.text for a in answers], kind=kind, part="recall", stemmer=True)


HOME = "locuslab/TOFU"
RETAINED = {"01": "99", "05": "95", "10": "90"}


def _set(name: str) -> DataSet:
    return DataSet(name, f"{HOME}:{name}")


def _benchmark(size: str) -> Benchmark:
    return Benchmark(
        name=f"tofu/forget{size}",
        paper="arXiv:2401.06121",
        sets=tuple(map(_set, (f"forget{size}_perturbed", f"holdout{size}", *SETS.values()))),
        probes=lambda data: probes(data, size),
        score=score,
        warn=partial(without_words, parts=("forget", *SETS), how="they score 0, as in OpenUnlearning's code"),
        forget=_set(f"forget{size}"),
        retain=_set(f"retain{RETAINED[size]}"),
    )


ALL = [_benchmark(size) for size in RETAINED]
