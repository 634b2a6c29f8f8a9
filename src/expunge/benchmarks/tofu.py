"""TOFU: invented authors, the last 1, 5 or 10 % of them to forget.  Maini et al. 2024, arXiv:2401.06121.

Data: ``locuslab/TOFU`` on the Hub (MIT), or a folder with files of the same names.  Prompts and scores are
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
    ScoreParts,
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
    rows_by_part = {part: _usual_rows(data, name, data.rows(name)) for part, name in names.items()}
    holdout = not_among(data, rows_by_part["forget"], data.rows(f"holdout{size}"), (names["forget"], f"holdout{size}"))
    out = [
        Probe(part, i, r, texts(r), ANSWER, grad_norm=("answer",) if part == "forget" else ())
        for part, rows in rows_by_part.items()
        for i, r in enumerate(rows)
    ]
    return out + [Probe("holdout", i, r, {"answer": r.answer}, grad_norm=("answer",)) for i, r in enumerate(holdout)]


def _usual_rows(data: Data, name: str, rows: Sequence[Row]) -> list[Row]:
    """``rows`` with the most frequent number of wrong answers and with or without a paraphrase, as most of them."""
    kinds = [(len(r.perturbed), r.paraphrase is not None) for r in rows]
    usual = Counter(kinds).most_common(1)[0][0]
    excluded = [r for r, kind in zip(rows, kinds, strict=True) if kind != usual]
    if excluded:
        paraphrase = "a paraphrase" if usual[1] else "no paraphrase"
        data.leave_out(
            name, len(excluded), f"{excluded[0].where}: most rows have {usual[0]} wrong answers and {paraphrase}"
        )
    return [r for r, kind in zip(rows, kinds, strict=True) if kind == usual]


def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    """Memorisation of the forget set, utility, membership attacks; with a retrained model also forget quality."""
    out = [*_memory(collected), *_utility(collected), *membership.figures(collected, retrained, "forget", "holdout")]
    if retrained is not None:
        out += _quality(ratios(collected, "forget"), ratios(retrained, "forget"))
    return out


def _memory(collected: Collected) -> list[Figure]:
    """The forget set: probability, ROUGE-L, truth ratio, exact memorisation, extraction strength."""
    ratio = ratios(collected, "forget")
    all_hits = [s.hit for s in collected.scored("forget")]
    hits = [membership.words(s, s.hit) for s in collected.scored("forget")]
    return [
        mean_figure("probability", metrics.probability(collected.mean_logp("forget")), "forget"),
        mean_figure("rouge_l_recall", _rouge(collected, "forget"), "forget"),
        mean_figure("rouge_1_recall", _rouge(collected, "forget", "rouge1"), "forget"),
        mean_figure("truth_ratio", np.minimum(ratio, 1 / ratio), "forget", "closer to 1 is better: min(r, 1/r)"),
        mean_figure("truth_ratio_true_better", np.maximum(0, 1 - ratio), "forget", "max(0, 1 - r)"),
        mean_figure("knowledge", 1 / (1 + ratio), "forget", "the right answer's share, 1 / (1 + r); 0.5: unknown"),
        mean_figure(
            "paraphrased_probability", metrics.probability(collected.mean_logp("forget", "paraphrase")), "forget"
        ),
        mean_figure("exact_memorisation", metrics.exact_memorisation(hits), "forget", END),
        mean_figure("extraction_strength", metrics.extraction_strength(hits), "forget", END),
        mean_figure(
            "extraction_strength_compat", metrics.extraction_strength(all_hits, compat=True), "forget", NEVER_0
        ),
    ]


def _utility(collected: Collected) -> list[Figure]:
    """Nine parts and their harmonic mean, the model utility, whose interval resamples each part's examples."""
    samples = {}
    for part in SETS:
        if part == "retain":
            samples[f"{part}_probability"] = metrics.probability(collected.mean_logp(part))
        else:
            samples[f"{part}_probability"] = metrics.normalised_probability(
                collected.mean_logp(part), collected.mean_logps(part, "wrong")
            )
        samples[f"{part}_rouge"] = _rouge(collected, part)
        samples[f"{part}_truth_ratio"] = np.maximum(0, 1 - ratios(collected, part))
    names = list(samples)

    def utility(*means: float) -> float:
        return metrics.model_utility(dict(zip(names, means, strict=True)))

    interval = bootstrap_of_means(utility, *samples.values())
    n = sum(len(v) for v in samples.values())
    parts = [
        mean_figure(name.removeprefix(part + "_"), v, part)
        for name, v in samples.items()
        for part in SETS
        if name.startswith(part)
    ]
    value = utility(*(float(np.mean(v)) for v in samples.values()))
    return [*parts, Figure("model_utility", value, n, interval.low, interval.high, "all")]


def _quality(ratio: np.ndarray, retrained_ratio: np.ndarray) -> list[Figure]:
    """Forget quality, and whether the truth ratios are *shown* to be equal: a KS test that does not reject shows nothing."""
    quality = metrics.forget_quality(ratio, retrained_ratio)
    out = [Figure("forget_quality", quality, len(ratio), part="forget", note="p of a KS test")]
    if len(ratio) < 2:  # one row has no spread to test with
        return out
    equivalence = tost(np.minimum(ratio, 1 / ratio), np.minimum(retrained_ratio, 1 / retrained_ratio), SAME)
    return [
        *out,
        Figure(
            "truth_ratio_difference",
            equivalence.difference,
            len(ratio),
            equivalence.low,
            equivalence.high,
            "forget",
            f"to the retrained model; {'equal' if equivalence.equivalent else 'not shown equal'} within {SAME} (TOST)",
        ),
    ]


def ratios(collected: Collected, part: str) -> np.ndarray:
    """(n,) truth ratios; real authors and world facts have no paraphrase, so their right answer is used."""
    reference = "paraphrase" if part in ("forget", "retain") else "answer"
    return metrics.truth_ratio(collected.mean_logp(part, reference), collected.mean_logps(part, "wrong"))


def _rouge(collected: Collected, part: str, kind: Kind = "rougeL") -> np.ndarray:
    answers = collected.generated(part)
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
        score_parts=ScoreParts(),
    )


ALL = [_benchmark(size) for size in RETAINED]
