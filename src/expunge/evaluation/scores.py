"""Memorisation, privacy, utility and their mean, from what models said or from the figures of an old record.  No torch.

The formulas are in :mod:`expunge.evaluation.metrics.scores`.  :func:`figures` is what a benchmark's results have, with an
interval each: a percentile bootstrap in which every resample draws the rows of each set once, for all figures and all
models, so that what two models have in common drops out.  :func:`of_figures` makes the same values of the figures of a
record, without intervals.

What was not measured is left out of its score, and the score's note says so; the mean of the three is only there where all
three are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.evaluation import fluency
from expunge.evaluation.benchmark import Figure, ScoreParts
from expunge.evaluation.metrics import likelihood, membership
from expunge.evaluation.metrics import scores as metrics
from expunge.evaluation.metrics.rouge import readable, rouge
from expunge.evaluation.table import Collected
from expunge.stats import RESAMPLES, auc, bounded_mean
from expunge.stats.resampling import percentiles, picks, resampled_aucs
from expunge.stats.samples import LEVEL

Array = NDArray[np.float64]
Picks = Sequence[NDArray[np.int64]]  # (resamples, n) entries of the forget rows, of the holdout's, of the retain rows
PART = "all"
WORDS = {
    "exact_memorisation": "exact memorisation",
    "extraction_strength": "extraction strength",
    "paraphrased_probability": "paraphrased probability",
    "truth_ratio_true_better": "truth ratio",
    "loss": "the loss attack",
    "zlib": "the zlib attack",
    "min_k": "Min-K",
    "min_k_plus_plus": "Min-K++",
    "probability_kept": "retain probability",
    "rouge_kept": "retain ROUGE",
    "fluency": "fluency",
}
NEEDS = {
    "memorisation": "scored answers to forget",
    "privacy": "a retrained model and a holdout set",
    "utility": "the target model, or a retrained one, and retain rows",
}


@dataclass(frozen=True)
class Rows:
    """What the scores are made of, one number a row, NaN where a row has none.

    ``known``: of the forget rows (n,); ``attacks``: (n,) and the holdout's (m,); ``kept``: probability and ROUGE of the
    retain rows (k,); ``fluency``: of the answers to forget rows (n,), or none.
    """

    known: Mapping[str, Array] = field(default_factory=dict)
    attacks: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    kept: Mapping[str, Array] = field(default_factory=dict)
    fluency: Array | None = None

    def sizes(self) -> list[int]:
        """The number of forget, holdout and retain rows, 1 where there are none."""
        members, others = next(iter(self.attacks.values()), ((), ()))
        forget = next(iter(self.known.values()), members)
        return [max(1, len(rows)) for rows in (forget, others, next(iter(self.kept.values()), ()))]


@dataclass(frozen=True)
class Means:
    """The means of :class:`Rows`, numbers or arrays (resamples,); ``auc`` in the attacks' place."""

    known: Mapping[str, Any]
    auc: Mapping[str, Any]
    kept: Mapping[str, Any]
    fluency: Any = None


# -- results of a benchmark ------------------------------------------------------------------------------------------------
def figures(parts: ScoreParts, collected: Mapping[str, Collected]) -> dict[str, list[Figure]]:
    """The scores of each model of ``collected``: of ``model``, ``target`` (before unlearning) and ``retrained`` those given.

    Utility is relative to the target, or to the retrained model where no target was asked.  A model's privacy beside itself,
    and what it kept of itself, are 1 by definition and have no interval.
    """
    rows = {role: rows_of(parts, table) for role, table in collected.items()}
    return {role: _figures(role, rows) for role in rows}


def rows_of(parts: ScoreParts, collected: Collected) -> Rows:
    """The numbers of one model."""
    asked = {(s.part, s.variant) for s in collected.scores}
    if (parts.forget, "answer") not in asked:
        return Rows()
    scored = collected.scored(parts.forget)
    at = {s.index: i for i, s in enumerate(scored)}
    hits = [membership.words(s, s.hit) for s in scored]
    known = {
        "exact_memorisation": likelihood.exact_memorisation(hits),
        "extraction_strength": likelihood.extraction_strength(hits),
    }
    if (parts.forget, "paraphrase") in asked:
        paraphrased = collected.scored(parts.forget, "paraphrase")
        known["paraphrased_probability"] = _placed(
            at, [s.index for s in paraphrased], likelihood.probability([s.mean_logp for s in paraphrased])
        )
        known |= _truth_ratio(parts.forget, collected, at)
    attacks: dict[str, tuple[Array, Array]] = {}
    if (parts.holdout, "answer") in asked:
        members, others = (membership.scores(collected, part) for part in (parts.forget, parts.holdout))
        attacks = {name: (members[name], others[name]) for name in metrics.ATTACKS}
    written = fluency.answers(collected, parts.forget)
    language = _placed(at, written.index, written.fluency) if written else None
    return Rows(known, attacks, _kept(parts, collected, asked), language)


def _truth_ratio(part: str, collected: Collected, at: Mapping[int, int]) -> dict[str, Array]:
    """The truth ratio of each row that has wrong answers and a paraphrase, row by row: their number may differ."""
    wrong: dict[int, list[float]] = {}
    for variant in collected.variants(part, "wrong"):
        for s in collected.scored(part, variant):
            wrong.setdefault(s.index, []).append(s.mean_logp)
    right = {s.index: s.mean_logp for s in collected.scored(part, "paraphrase") if s.index in wrong}
    if not right:
        return {}
    values = [max(0.0, 1 - float(likelihood.truth_ratio([logp], [wrong[i]])[0])) for i, logp in right.items()]
    return {"truth_ratio_true_better": _placed(at, list(right), np.array(values))}


def _kept(parts: ScoreParts, collected: Collected, asked: set[tuple[str, str]]) -> dict[str, Array]:
    part = next((p for p in parts.retain if (p, "answer") in asked), None)
    if part is None:
        return {}
    scored = collected.scored(part)
    kept = {"probability": likelihood.probability([s.mean_logp for s in scored])}
    at = {s.index: i for i, s in enumerate(scored)}
    said = [a for a in collected.answers if a.part == part and a.variant == "answer" and a.index in at]
    if any(readable(a.expected) for a in said):
        values = rouge([a.expected for a in said], [a.text for a in said], part="recall", stemmer=True)
        kept["rouge"] = _placed(at, [a.index for a in said], values)
    return kept


def _placed(at: Mapping[int, int], indices: Sequence[int], values: Array) -> Array:
    """``values`` of the rows ``indices`` in the places ``at``; NaN elsewhere."""
    out = np.full(len(at), np.nan)
    for index, value in zip(indices, values, strict=True):
        if index in at:
            out[at[index]] = value
    return out


# -- means, of all rows or of resamples ------------------------------------------------------------------------------------
def means(rows: Rows, drawn: Picks | None = None) -> Means:
    """The means over all rows, or over those ``drawn``."""
    forget, holdout, retain = drawn or (None, None, None)

    def area(members: Array, others: Array) -> Any:
        if forget is None or holdout is None:
            return auc(members, others)
        return resampled_aucs(members, others, forget, holdout)

    return Means(
        {name: _mean(values, forget) for name, values in rows.known.items()},
        {name: area(*pair) for name, pair in rows.attacks.items()},
        {name: _mean(values, retain) for name, values in rows.kept.items()},
        None if rows.fluency is None else _mean(rows.fluency, forget),
    )


def _mean(values: Array, drawn: NDArray[np.int64] | None) -> Any:
    """The mean of the numbers among ``values``; of a resample without any, the one of all."""
    whole = np.nanmean(values)
    if drawn is None:
        return whole
    there = ~np.isnan(values)
    counts = there[drawn].sum(axis=1)
    sums = np.where(there, values, 0.0)[drawn].sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), whole)


def parts_of(model: Means, base: Means | None, retrained: Means | None) -> dict[str, dict[str, Any]]:
    """Score -> its parts as shares that are better when higher; those that are not measured are not there.

    ``base``: the model that utility is relative to.
    """
    out: dict[str, dict[str, Any]] = {"memorisation": {k: 1 - v for k, v in model.known.items()}}
    if retrained is not None:
        common = [a for a in metrics.ATTACKS if a in model.auc and a in retrained.auc]
        out["privacy"] = {a: metrics.closeness(model.auc[a], retrained.auc[a]) for a in common}
    if base is not None and model.kept:
        out["utility"] = {
            f"{name}_kept": metrics.kept_share(v, base.kept[name])
            for name, v in model.kept.items()
            if name in base.kept
        } | ({} if model.fluency is None else {"fluency": model.fluency})
    return {name: parts for name, parts in out.items() if parts}


def _figures(role: str, rows: Mapping[str, Rows]) -> list[Figure]:
    """The scores of the model ``role`` beside the others."""
    base = "target" if "target" in rows else "retrained" if "retrained" in rows else ""
    beside = [who for who in (role, base, "retrained") if who in rows]

    def parts(drawn: Picks | None) -> dict[str, dict[str, Any]]:
        of = {who: means(rows[who], drawn) for who in dict.fromkeys(beside)}
        return parts_of(of[role], of.get(base), of.get("retrained"))

    sizes = rows[role].sizes()
    whole = parts(None)
    blocks = [parts(drawn) for drawn in picks(sizes, RESAMPLES, seed=0)]
    columns = {
        name: {part: np.concatenate([np.atleast_1d(b[name][part]) for b in blocks]) for part in of}
        for name, of in whole.items()
    }
    given = {"privacy": role == "retrained", "utility": role == base}  # 1 by definition, but for fluency
    return _named(whole, columns, sizes, given)


def _named(
    whole: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, Mapping[str, Array]],
    sizes: Sequence[int],
    given: Mapping[str, bool],
) -> list[Figure]:
    forget, holdout, retain = sizes
    n = {"memorisation": forget, "privacy": forget + holdout, "utility": retain}
    pairs = {"memorisation": forget, "privacy": min(forget, holdout), "utility": retain}
    out, ends, resampled = [], {}, {}
    for name, parts in whole.items():
        value = float(metrics.harmonic(list(parts.values())))
        resampled[name] = metrics.harmonic(list(columns[name].values()))
        free = [part for part in parts if not given.get(name) or part == "fluency"]
        still = [part for part in free if np.ptp(columns[name][part]) == 0]  # it does not vary between resamples
        bounds = {part: bounded_mean([float(parts[part])] * pairs[name]) for part in still}
        ends[name] = [
            float(metrics.harmonic([getattr(bounds[p], end) if p in bounds else v for p, v in parts.items()]))
            for end in ("low", "high")
        ]
        low, high = _interval(resampled[name], ends[name]) if free else (None, None)
        out.append(Figure(name, value, n[name], low, high, PART, note(name, parts)))
        if name == "utility":
            out = [*out[:-1], *_kept_figures(parts, columns[name], retain, given["utility"]), out[-1]]
    values = {f.name: f.value for f in out if f.name in metrics.SCORES}
    if set(values) != set(metrics.SCORES):
        return [*out, undefined(values, sum(sizes))]
    score = float(metrics.score(values))
    low, high = _interval(
        metrics.score(resampled), [float(metrics.harmonic([e[k] for e in ends.values()])) for k in (0, 1)]
    )
    return [*out, Figure("score", score, sum(sizes), low, high, PART, MEAN)]


MEAN = "harmonic mean of memorisation, privacy and utility"


def _kept_figures(parts: Mapping[str, Any], columns: Mapping[str, Array], n: int, by_definition: bool) -> list[Figure]:
    """How much of the target's retain probability and ROUGE is left."""
    out = []
    for name in (p for p in parts if p.endswith("_kept")):
        low, high = (None, None)
        if not by_definition:
            value, still = float(parts[name]), np.ptp(columns[name]) == 0
            bound = bounded_mean([value] * n) if still else None
            low, high = _interval(columns[name], [bound.low, bound.high] if bound else [value, value])
        out.append(Figure(f"retain_{name}", float(parts[name]), n, low, high, PART, "of the target's, at most 1"))
    return out


def _interval(values: Array, ends: Sequence[float]) -> tuple[float, float]:
    """The percentiles of resampled ``values``, and at least from one of ``ends`` to the other."""
    interval = percentiles(values, LEVEL)
    return min(interval.low, ends[0]), max(interval.high, ends[1])


def note(name: str, parts: Iterable[str]) -> str:
    """What was not measured of a score."""
    of = {"memorisation": metrics.MEMORISATION, "privacy": metrics.ATTACKS, "utility": metrics.UTILITY}[name]
    missing = [WORDS[part] for part in of if part not in set(parts)]
    return f"without {' and '.join(missing)}, not measured" if missing else ""


def undefined(values: Iterable[str], n: int) -> Figure:
    """The mean of the three where one of them is missing."""
    missing = [f"{name} (needs {NEEDS[name]})" for name in metrics.SCORES if name not in set(values)]
    return Figure("score", math.nan, n, part=PART, note=f"not defined without {' and '.join(missing)}")


# -- figures of a record ---------------------------------------------------------------------------------------------------
def of_figures(
    model: Sequence[Mapping[str, Any]],
    target: Sequence[Mapping[str, Any]] | None,
    retrained: Sequence[Mapping[str, Any]] | None,
    parts: ScoreParts | None = None,
) -> list[Figure]:
    """The scores of a model from its figures in a record and those of the models beside it; they have no intervals, for the
    rows are not in a record.
    """
    parts = parts or ScoreParts()
    ours, before, theirs = (None if f is None else _means_of(f, parts) for f in (model, target, retrained))
    assert ours is not None
    made = parts_of(ours, before or theirs, theirs)
    n = {(f.get("part"), f.get("name")): int(f.get("n") or 0) for f in model}
    rows = n.get((parts.forget, "exact_memorisation"), 0)
    out = [
        Figure(name, float(metrics.harmonic(list(of.values()))), rows, part=PART, note=note(name, of))
        for name, of in made.items()
    ]
    values = {f.name: f.value for f in out}
    if set(values) != set(metrics.SCORES):
        return [*out, undefined(values, rows)]
    return [*out, Figure("score", float(metrics.score(values)), rows, part=PART, note=MEAN)]


def _means_of(found: Sequence[Mapping[str, Any]], parts: ScoreParts) -> Means:
    values = {(f.get("part"), f.get("name")): f["value"] for f in found if f.get("value") is not None}
    retain = next((p for p in parts.retain if (p, "probability") in values), "")
    kept = {name: values[retain, name] for name in ("probability", "rouge") if (retain, name) in values}
    aucs = {
        a: values[parts.forget, f"mia_{a}_auc"] for a in metrics.ATTACKS if (parts.forget, f"mia_{a}_auc") in values
    }
    known = {name: values[parts.forget, name] for name in metrics.MEMORISATION if (parts.forget, name) in values}
    return Means(known, aucs, kept, values.get((parts.forget, "fluency")))
