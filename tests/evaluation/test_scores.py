"""The scores of models: a plain loop over rows and resamples, the committed comparison, and what is missing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from expunge import stats
from expunge.evaluation import scores
from expunge.evaluation.benchmark import ScoreParts
from expunge.evaluation.metrics import privacy
from expunge.evaluation.metrics import scores as metrics
from expunge.evaluation.table import Collected, Generated, Scored

COMMITTED = Path(__file__).parents[2] / "results" / "tofu-slice-14-methods" / "compare.json"
N, M, K = 6, 5, 4  # rows to forget, holdout rows, rows to keep
WORDS = ["the", "red", "fox", "was", "born", "in", "a", "small", "town", "near", "the", "sea"]


def model(seed, known=0.0, *, paraphrase=True, holdout=True, retain=True):
    """What a made-up model said: the likelier the answers to forget, the higher ``known``."""
    rng = np.random.default_rng(seed)

    def text(part, index, variant, up=0.0):
        logp = np.minimum(-1e-3, -rng.exponential(size=8) + up).astype(np.float32)
        spread = rng.random(8).astype(np.float32) + 0.5
        return Scored(part, index, variant, " ".join(WORDS), logp, logp - spread, spread, logp > -0.7)

    found = [text("forget", i, "answer", known) for i in range(N)]
    if paraphrase:
        found += [text("forget", i, v) for i in range(N) for v in ("paraphrase", "wrong0", "wrong1")]
    found += [text("holdout", i, "answer") for i in range(M)] if holdout else []
    found += [text("retain", i, "answer", 0.3) for i in range(K)] if retain else []
    answers = [
        Generated("retain", i, "answer", " ".join(WORDS), " ".join(WORDS[: rng.integers(3, 11)])) for i in range(K)
    ]
    return Collected(tuple(found), tuple(answers) if retain else ())


def by_name(figures):
    return {f.name: f for f in figures}


def harmonic(values):
    return 0.0 if min(values) == 0 else len(values) / sum(1 / v for v in values)


def looped(of, target, retrained, forget, holdout, retain):
    """The three scores of the rows with these numbers, in plain loops."""

    def mean(values):
        return sum(values) / len(values)

    def answers(table, part, variant="answer"):
        return {s.index: s for s in table.scores if (s.part, s.variant) == (part, variant)}

    def probability(table, part, variant, rows):
        found = answers(table, part, variant)
        return mean([math.exp(float(np.mean(found[i].logp, dtype=np.float64))) for i in rows])

    def ratio(i):
        logp = {
            v: float(np.mean(answers(of, "forget", v)[i].logp, dtype=np.float64))
            for v in ("paraphrase", "wrong0", "wrong1")
        }
        return max(0.0, 1 - math.exp((logp["wrong0"] + logp["wrong1"]) / 2 - logp["paraphrase"]))

    def strength(hit):
        right = 0
        for h in reversed(hit):
            if not h:
                break
            right += 1
        return right / len(hit)

    hits = {i: [bool(h) for h in s.hit[:-1]] for i, s in answers(of, "forget").items()}
    known = [
        mean([mean([float(h) for h in hits[i]]) for i in forget]),
        mean([strength(hits[i]) for i in forget]),
        probability(of, "forget", "paraphrase", forget),
        mean([ratio(i) for i in forget]),
    ]

    def aucs(table):
        seen, unseen = answers(table, "forget"), answers(table, "holdout")
        out = []
        for name in ("loss", "zlib", "min_k", "min_k_plus_plus"):

            def value(s, name=name):
                inner = slice(None, -1)
                if name == "min_k":
                    return privacy.min_k([s.logp[inner]])[0]
                if name == "min_k_plus_plus":
                    return privacy.min_k_plus_plus([s.logp[inner]], [s.vocab_mean[inner]], [s.vocab_std[inner]])[0]
                return (privacy.zlib_score([s.logp], [s.text]) if name == "zlib" else privacy.loss_score([s.logp]))[0]

            pairs = [(value(seen[i]), value(unseen[j])) for i in forget for j in holdout]
            out.append(mean([float(u > s) + 0.5 * float(u == s) for s, u in pairs]))
        return out

    close = [1 - abs(a - r) / max(r, 1 - r) for a, r in zip(aucs(of), aucs(retrained), strict=True)]

    def rouge(table, rows):
        found = {a.index: a for a in table.answers if a.part == "retain"}
        return mean([len(found[i].text.split()) / len(WORDS) for i in rows])  # a beginning of the right answer

    kept = [
        min(1.0, probability(of, "retain", "answer", retain) / probability(target, "retain", "answer", retain)),
        min(1.0, rouge(of, retain) / rouge(target, retain)),
    ]
    return {
        "memorisation": harmonic([1 - v for v in known]),
        "privacy": harmonic(close),
        "utility": harmonic(kept),
    }


@pytest.fixture(scope="module")
def models():
    return {"target": model(0, 2.0), "model": model(1, 0.4), "retrained": model(2)}


def test_values_are_what_a_plain_loop_gives(models):
    every = scores.figures(ScoreParts(), models)
    for role, figures in every.items():
        wanted = looped(models[role], models["target"], models["retrained"], range(N), range(M), range(K))
        made = by_name(figures)
        assert {name: made[name].value for name in wanted} == pytest.approx(wanted), role
        assert made["score"].value == pytest.approx(harmonic(list(wanted.values())))
        assert made["utility"].note == "without fluency, not measured" and made["memorisation"].note == ""
    assert by_name(every["retrained"])["privacy"].value == 1
    assert [by_name(every["target"])[f"retain_{n}_kept"].value for n in ("probability", "rouge")] == [1, 1]


def test_intervals_resample_rows_and_all_models_the_same(models, monkeypatch):
    monkeypatch.setattr(scores, "RESAMPLES", 40)
    made = by_name(scores.figures(ScoreParts(), models)["model"])
    rng = np.random.default_rng(0)
    drawn = [[rng.integers(n, size=n) for n in (N, M, K)] for _ in range(40)]
    loops = [looped(models["model"], models["target"], models["retrained"], *rows) for rows in drawn]
    for name in metrics.SCORES:
        low, high = np.quantile([one[name] for one in loops], [0.025, 0.975])
        assert (made[name].low, made[name].high) == pytest.approx((low, high)), name
    low, high = np.quantile([harmonic(list(one.values())) for one in loops], [0.025, 0.975])
    assert (made["score"].low, made["score"].high) == pytest.approx((low, high))


def test_every_score_lies_within_its_interval_and_that_within_0_and_1(models):
    for figures in scores.figures(ScoreParts(), models).values():
        for f in figures:
            assert f.low is None or 0 <= f.low <= f.value <= f.high <= 1, f


def test_what_is_1_by_definition_has_no_interval(models):
    every = {role: by_name(figures) for role, figures in scores.figures(ScoreParts(), models).items()}
    assert every["retrained"]["privacy"].low is None and every["target"]["utility"].low is None
    assert every["model"]["privacy"].low is not None and every["retrained"]["score"].low is not None


def test_rows_that_all_agree_leave_a_width():
    """Every forget token is right, in every resample: 6 of 6 rows say that at most so many others may differ."""
    same = {"target": model(0, 9.0), "model": model(1, 9.0), "retrained": model(2)}
    made = by_name(scores.figures(ScoreParts(), same)["model"])
    assert made["memorisation"].value == 0 and made["memorisation"].low == 0
    others = 1 - 0.025 ** (1 / N)
    assert 0 < made["memorisation"].high <= 4 * others


def test_what_is_missing_is_said():
    alone = by_name(scores.figures(ScoreParts(), {"model": model(1)})["model"])
    assert math.isnan(alone["score"].value) and set(alone) == {"memorisation", "score"}
    assert alone["score"].note == (
        "not defined without privacy (needs a retrained model and a holdout set) and utility (needs the target model, or a "
        "retrained one, and retain rows)"
    )
    bare = {role: model(i, paraphrase=False, holdout=False) for i, role in enumerate(("model", "target", "retrained"))}
    made = by_name(scores.figures(ScoreParts(), bare)["model"])
    assert made["memorisation"].note == "without paraphrased probability and truth ratio, not measured"
    assert "privacy" not in made and math.isnan(made["score"].value)
    plain = scores.figures(ScoreParts(forget="other"), {"model": model(1)})["model"]
    assert [f.name for f in plain] == ["score"] and "needs scored answers to forget" in plain[0].note


def test_without_a_target_utility_is_beside_the_retrained_model(models):
    two = {role: models[role] for role in ("model", "retrained")}
    made = by_name(scores.figures(ScoreParts(), two)["model"])
    wanted = looped(models["model"], models["retrained"], models["retrained"], range(N), range(M), range(K))
    assert made["utility"].value == pytest.approx(wanted["utility"])


def test_rows_that_were_not_trained_on_come_first(models):
    """The retain part is the first that was asked."""
    parts = ScoreParts(retain=("unseen", "retain"))
    assert scores.figures(parts, models) == scores.figures(ScoreParts(), models)
    other = {
        role: Collected(
            (*t.scores, *(Scored(**{**vars(s), "part": "unseen"}) for s in t.scored("retain")[:2])), t.answers
        )
        for role, t in models.items()
    }
    made = by_name(scores.figures(parts, other)["model"])
    assert made["utility"].n == 2 and "retain ROUGE" in made["utility"].note


def test_a_record_gives_the_same_values(models):
    """From the figures alone: the benchmark's own names."""
    tables = {
        role: [
            {"part": "forget", "name": name, "value": float(value), "n": N}
            for name, value in [
                *scores.means(scores.rows_of(ScoreParts(), t)).known.items(),
                *((f"mia_{a}_auc", v) for a, v in scores.means(scores.rows_of(ScoreParts(), t)).auc.items()),
            ]
        ]
        + [
            {"part": "retain", "name": name, "value": float(value), "n": K}
            for name, value in scores.means(scores.rows_of(ScoreParts(), t)).kept.items()
        ]
        for role, t in models.items()
    }
    made = by_name(scores.of_figures(tables["model"], tables["target"], tables["retrained"]))
    wanted = by_name(scores.figures(ScoreParts(), models)["model"])
    for name in (*metrics.SCORES, "score"):
        assert made[name].value == pytest.approx(wanted[name].value) and made[name].low is None


def test_the_committed_comparison_scores_as_published_in_its_issue():
    """Three digits of a table that was made by another program from the same figures, without fluency and paraphrases."""
    said = json.loads(COMMITTED.read_text(encoding="utf-8"))
    beside = said["target"]["figures"], said["retrained"]["figures"]
    made = {r["label"]: by_name(scores.of_figures(r["figures"], *beside)) for r in said["runs"]}
    made["retrained"] = by_name(scores.of_figures(said["retrained"]["figures"], *beside))
    wanted = {"wga": 0.839, "retrained": 0.833, "blur_npo": 0.672, "npo": 0.627, "blur_margin": 0.222, "pdu": 0.056}
    assert {name: round(made[name]["score"].value, 3) for name in wanted} == wanted
    three = [round(made["retrained"][name].value, 3) for name in metrics.SCORES]
    assert three == [0.634, 1.0, 0.976]
    assert made["pdu"]["memorisation"].note == "without paraphrased probability, not measured"
    assert made["pdu"]["utility"].note == "without fluency, not measured"
    assert stats.harmonic_mean(three) == pytest.approx(0.833, abs=1e-3)
