"""TOFU: invented authors, the last 1, 5 or 10 % of them to forget.  Maini et al. 2024, arXiv:2401.06121.

Data: ``locuslab/TOFU`` on the Hub (MIT), or a folder with files of the same names.  What is asked and how it is scored is
OpenUnlearning's; ``<split>_perturbed`` carries the answers, their paraphrase and five wrong ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from expunge.evaluation import metrics, privacy
from expunge.evaluation.benchmark import Benchmark, Figure, Rows, no_overlap, texts
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.rouge import rouge
from expunge.evaluation.table import Collected, Scored
from expunge.stats import bootstrap, bootstrap_mean, tost

SETS = {"retain": "retain_perturbed", "real_authors": "real_authors_perturbed", "world_facts": "world_facts_perturbed"}
ANSWER = Ask(max_new_tokens=200)
SAME = 0.05  # mean truth ratios closer than this count as equal
END = "without the end-of-turn token, as OpenUnlearning"
SCORES = ("loss", "zlib", "min_k", "min_k_plus_plus")


def probes(rows: Rows, size: str) -> list[Probe]:
    """Forget and utility questions with all their answers, and the holdout's right answers for membership inference."""
    forget, holdout = rows(f"forget{size}_perturbed"), rows(f"holdout{size}")
    no_overlap(forget, holdout, (f"forget{size}_perturbed", f"holdout{size}"))
    asked = {"forget": forget, **{part: rows(name) for part, name in SETS.items()}}
    out = [Probe(part, i, r, texts(r), ANSWER) for part, found in asked.items() for i, r in enumerate(found)]
    return out + [Probe("holdout", i, r, {"answer": r.answer}) for i, r in enumerate(holdout)]


def score(found: Collected, retrained: Collected | None = None) -> list[Figure]:
    """What is known of the forget set, what stayed, and what an attacker sees; beside the retrained model if it is given."""
    out = [*_memory(found), *_utility(found), *_attacks(found, retrained)]
    if retrained is not None:
        out += _quality(_ratio(found, "forget"), _ratio(retrained, "forget"))
    return out


def _memory(found: Collected) -> list[Figure]:
    """The forget set: probability, ROUGE-L, truth ratio, exact memorisation, extraction strength."""
    ratio = _ratio(found, "forget")
    hits = [_words(s, s.hit) for s in found.scored("forget")]
    return [
        _mean("probability", metrics.probability(found.mean_logp("forget")), "forget"),
        _mean("rouge_l_recall", _rouge(found, "forget"), "forget"),
        _mean("truth_ratio", np.minimum(ratio, 1 / ratio), "forget", "mean of min(r, 1/r)"),
        _mean("exact_memorisation", metrics.exact_memorisation(hits), "forget", END),
        _mean("extraction_strength", metrics.extraction_strength(hits), "forget", END),
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
        samples[f"{part}_truth_ratio"] = np.maximum(0, 1 - _ratio(found, part))
    names = list(samples)

    def utility(*values: np.ndarray) -> float:
        return metrics.model_utility({n: float(np.mean(v)) for n, v in zip(names, values, strict=True)})

    whole = bootstrap(utility, *samples.values())
    n = sum(len(v) for v in samples.values())
    parts = [
        _mean(name.removeprefix(part + "_"), v, part)
        for name, v in samples.items()
        for part in SETS
        if name.startswith(part)
    ]
    return [*parts, Figure("model_utility", utility(*samples.values()), n, whole.low, whole.high, "all")]


def _attacks(found: Collected, retrained: Collected | None) -> list[Figure]:
    """Membership inference, forget against holdout, and PrivLeak where the retrained model gives its zero."""
    out = []
    aucs: dict[str, float] = {}
    for name in SCORES:
        a = privacy.attack(_scores(found, "forget")[name], _scores(found, "holdout")[name])
        aucs[name] = a.auc
        n = a.n_members + a.n_non_members
        out.append(
            Figure(
                f"mia_{name}_auc", a.auc, n, a.auc_interval.low, a.auc_interval.high, "forget", "1: seen, 0.5: unseen"
            )
        )
        out.append(Figure(f"mia_{name}_tpr_at_1_percent", a.tpr_at_1_percent, n, part="forget"))
    if retrained is not None:
        zero = privacy.attack(_scores(retrained, "forget")["min_k"], _scores(retrained, "holdout")["min_k"])
        n = zero.n_members + zero.n_non_members
        out.append(Figure("privleak", privacy.privleak(aucs["min_k"], zero.auc), n, part="forget", note="of Min-K"))
    return out


def _quality(ours: np.ndarray, theirs: np.ndarray) -> list[Figure]:
    """Forget quality, and whether the truth ratios are *shown* to be equal: a KS test that does not reject shows nothing."""
    same = tost(np.minimum(ours, 1 / ours), np.minimum(theirs, 1 / theirs), SAME)
    return [
        Figure("forget_quality", metrics.forget_quality(ours, theirs), len(ours), part="forget", note="p of a KS test"),
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


def _ratio(found: Collected, part: str) -> np.ndarray:
    """(n,) truth ratios; real authors and world facts have no paraphrase, so their right answer stands in for it."""
    right = "paraphrase" if part in ("forget", "retain") else "answer"
    return metrics.truth_ratio(found.mean_logp(part, right), found.mean_logps(part, "wrong"))


def _rouge(found: Collected, part: str) -> np.ndarray:
    answers = found.generated(part)
    return rouge([a.expected for a in answers], [a.text for a in answers], kind="rougeL", part="recall", stemmer=True)


def _scores(found: Collected, part: str) -> Mapping[str, np.ndarray]:
    rows = found.scored(part)
    logp, words = [s.logp for s in rows], [_words(s, s.logp) for s in rows]
    mean, deviation = [_words(s, s.vocab_mean) for s in rows], [_words(s, s.vocab_std) for s in rows]
    return {
        "loss": privacy.loss_score(logp),
        "zlib": privacy.zlib_score(logp, [s.text for s in rows]),
        "min_k": privacy.min_k(words),
        "min_k_plus_plus": privacy.min_k_plus_plus(words, mean, deviation),
    }


def _words(text: Scored, values: np.ndarray) -> np.ndarray:
    """(T,) without the end-of-turn token where there is one, as OpenUnlearning has it for all but loss and zlib."""
    return values[:-1] if text.ends and len(values) > 1 else values


def _mean(name: str, values: np.ndarray, part: str, note: str = "") -> Figure:
    interval = bootstrap_mean(values)
    return Figure(name, float(np.mean(values)), len(values), interval.low, interval.high, part, note)


def _benchmark(size: str) -> Benchmark:
    return Benchmark(
        name=f"tofu/forget{size}",
        paper="arXiv:2401.06121",
        home="locuslab/TOFU",
        sets=(f"forget{size}_perturbed", f"holdout{size}", *SETS.values()),
        probes=lambda rows: probes(rows, size),
        score=score,
    )


ALL = [_benchmark(size) for size in ("01", "05", "10")]
