"""Published numbers, recomputed: OpenUnlearning's TOFU logs, the SemEval-2025 leaderboard, perfect answers on real data.

The logs and data lie in ``tests/fixtures`` (its SOURCES.md says where they come from).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from golden import FIXTURES, MODELS, column, digits, log, summary, whole

from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.metrics import lume, rouge

NAMES = {"retain": "retain", "real_authors": "ra", "world_facts": "wf"}  # ours -> the logs'


def ratio(model, of, *, compat=False):
    """The truth ratio of each example, from the logged losses; authors and facts have no paraphrase but the answer."""
    right = f"{of}_Q_A_PARA_Prob" if of in ("forget", "retain") else f"{of}_Q_A_Prob"
    losses = column(model, right, "avg_loss"), column(model, f"{of}_Q_A_PERT_Prob", "avg_loss")
    return metrics.truth_ratio(-losses[0], -losses[1], compat=compat)


@pytest.mark.parametrize(
    ("full", "retrained", "published"),
    [
        ("full01", "retain99", 0.006760732303569208),
        ("full05", "retain95", 1.4275699621532978e-12),
        ("full10", "retain90", 3.9054713571083378e-22),
    ],
)
def test_forget_quality(full, retrained, published):
    """From the logged truth ratios and from the logged losses, with and without their 1e-10: every printed digit."""
    assert summary(full)["forget_quality"] == published
    logged = [column(m, "forget_truth_ratio", "score") for m in (full, retrained)]
    for pair in (logged, *([ratio(m, "forget", compat=c) for m in (full, retrained)] for c in (False, True))):
        assert metrics.forget_quality(*pair) == digits(published)


@pytest.mark.parametrize("model", MODELS)
def test_probability(model):
    """The logs round single probabilities to 32 bits, 6e-8 of themselves; there is no other difference."""
    for of in ("forget", "retain", "ra", "wf"):
        name = f"{of}_Q_A_Prob"
        got = metrics.probability(-column(model, name, "avg_loss"))
        assert got == pytest.approx(column(model, name, "prob"), rel=2e-7)
        assert metrics.mean(got) == pytest.approx(log(model)[name]["agg_value"], rel=5e-8)
    assert metrics.mean(column(model, "forget_Q_A_Prob", "prob")) == digits(summary(model)["forget_Q_A_Prob"])


@pytest.mark.parametrize("model", MODELS)
def test_normalised_probability(model):
    """With their 1e-10 the logged values up to their rounding; without it at most 1e-4 of a value, 2e-6 of a mean."""
    for of in ("ra", "wf"):
        losses = column(model, f"{of}_Q_A_Prob", "avg_loss"), column(model, f"{of}_Q_A_PERT_Prob", "avg_loss")
        name = f"{of}_Q_A_Prob_normalised"
        theirs = metrics.normalised_probability(-losses[0], -losses[1], compat=True)
        assert theirs == pytest.approx(column(model, name, "prob"), rel=2e-7)
        assert metrics.mean(theirs) == pytest.approx(log(model)[name]["agg_value"], rel=5e-8)
        ours = metrics.normalised_probability(-losses[0], -losses[1])
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert metrics.mean(ours) == pytest.approx(metrics.mean(theirs), rel=2e-6)


@pytest.mark.parametrize("model", MODELS)
def test_truth_ratio(model):
    """With their 1e-10 the logged values up to 2 units in the last place, by which ``exp`` differs from processor to
    processor, and every digit of the means; without it at most 1e-3 of a value, 1e-5 of a mean."""
    for of in ("forget", "retain", "ra", "wf"):
        name = "forget_truth_ratio" if of == "forget" else f"{of}_Truth_Ratio"
        theirs, ours = ratio(model, of, compat=True), ratio(model, of)
        np.testing.assert_array_max_ulp(theirs, column(model, name, "score"), maxulp=2)
        published = log(model)[name]["agg_value"]
        if of == "forget":
            assert metrics.closer_to_1_better(theirs, compat=True) == digits(published)
            assert metrics.closer_to_1_better(ours) == pytest.approx(published, rel=1e-8)
        else:
            assert metrics.true_better(theirs) == digits(published)
            assert metrics.true_better(ours) == pytest.approx(published, rel=1e-5)
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_model_utility(model):
    """From the nine logged parts every digit; from the logged losses and texts what the 1e-10 leaves, 1e-6."""
    published = summary(model)["model_utility"]
    means, own, theirs = {}, {}, {}
    for ours, of in NAMES.items():
        probability = "retain_Q_A_Prob" if of == "retain" else f"{of}_Q_A_Prob_normalised"
        means[f"{ours}_probability"] = log(model)[probability]["agg_value"]
        means[f"{ours}_rouge"] = log(model)[f"{of}_Q_A_ROUGE"]["agg_value"]
        means[f"{ours}_truth_ratio"] = log(model)[f"{of}_Truth_Ratio"]["agg_value"]
        logp = -column(model, f"{of}_Q_A_Prob", "avg_loss")
        wrong = -column(model, f"{of}_Q_A_PERT_Prob", "avg_loss")
        for values, compat in ((own, False), (theirs, True)):
            values[f"{ours}_probability"] = metrics.mean(
                metrics.probability(logp)
                if of == "retain"
                else metrics.normalised_probability(logp, wrong, compat=compat)
            )
            values[f"{ours}_rouge"] = metrics.mean(column(model, f"{of}_Q_A_ROUGE", "rougeL_recall"))
            values[f"{ours}_truth_ratio"] = metrics.true_better(ratio(model, of, compat=compat))
    assert metrics.model_utility(means) == digits(published)
    assert metrics.model_utility(theirs) == pytest.approx(published, rel=1e-8)
    assert metrics.model_utility(own) == pytest.approx(published, rel=1e-6)


def a_sequence(em, es):
    """The shortest answer with these two scores: hits of T tokens that OpenUnlearning scores, and one it drops."""
    for length in range(1, 500):
        right, run = em * length, es * length
        if all(abs(v - round(v)) < 1e-5 * length for v in (right, run)):
            right, run = round(right), round(run)
            if run == length:
                return [True] * length + [False]
            if run <= right < length:  # the run at the end, a miss, and the other hits before
                rest = right - run
                return [True] * rest + [False] * (length - right) + [True] * run + [False]
            if run == 1 and right == 0:  # nothing matches, and still 1/T
                return [False] * (length + 1)
    raise AssertionError((em, es))


@pytest.mark.parametrize("model", MODELS)
def test_exact_memorisation_and_extraction_strength(model):
    """The logs have no tokens: so each logged pair of scores is turned into hits that would give it, and scored again.

    Every pair is one that ``compat`` can give, no logged extraction strength is 0, and the means are the summary's.
    """
    em, es = column(model, "exact_memorization", "score"), column(model, "extraction_strength", "score")
    hits = [a_sequence(*pair) for pair in zip(em, es, strict=True)]
    assert metrics.exact_memorisation(hits, compat=True) == pytest.approx(em, abs=1e-5)
    assert metrics.extraction_strength(hits, compat=True) == pytest.approx(es, abs=1e-5)
    assert es.min() > 0
    assert not metrics.extraction_strength([h for h in hits if not h[-1]]).any()  # the last token counts without compat
    assert metrics.mean(em) == digits(summary(model)["exact_memorization"])
    assert metrics.mean(es) == digits(summary(model)["extraction_strength"])


def test_rouge():
    """Each logged ROUGE value from the logged texts, every digit: three values a text, three sets."""
    pytest.importorskip("rouge_score", reason="ROUGE needs expunge[bench]")
    for of in ("forget", "ra", "wf"):
        name = f"{of}_Q_A_ROUGE"
        texts = column("retain90", name, "ground_truth").tolist(), column("retain90", name, "generation").tolist()
        for key, kind, part in (
            ("rouge1_recall", "rouge1", "recall"),
            ("rougeL_recall", "rougeL", "recall"),
            ("rougeL_f1", "rougeL", "f1"),
        ):
            got = rouge.rouge(*texts, kind=kind, part=part)
            assert got.tolist() == column("retain90", name, key).tolist()
        assert metrics.mean(rouge.rouge(*texts)) == digits(log("retain90")[name]["agg_value"])


@pytest.mark.parametrize(
    ("entry", "final", "aggregate", "mia", "mmlu"),
    [
        ("AILS-NTUA", 0.706, 0.827, 0.847, 0.443),
        ("ZJUKLAB", 0.487, 0.944, 0.048, 0.471),
        ("SHA256", 0.711, 0.964, 0.894, 0.275),
        ("NPO", 0.188, 0.021, 0.080, 0.463),
        ("gradient difference", 0.243, 0, 0.382, 0.348),
        ("gradient ascent", 0.394, 0, 0.912, 0.269),
        ("KL minimisation", 0.395, 0, 0.916, 0.269),
        ("ynu", 0.470, 0.834, 0.139, 0.436),
        ("Mr. Snuffleupagus", 0.376, 0.387, 0.256, 0.485),
        ("GIL-IIMAS UNAM", 0.308, 0.478, 0.0, 0.446),
        ("rank 11", 0.165, 0, 0, 0.495),
        ("MALTO", 0.402, 0, 0.965, 0.242),
    ],
)
def test_lume_leaderboard(entry, final, aggregate, mia, mmlu):
    """SemEval-2025 task 4, 7B: finals from their printed parts.  All four are rounded to three digits, so 0.001 apart."""
    assert lume.lume_final(aggregate, mia, mmlu) == pytest.approx(final, abs=0.001), entry


@pytest.mark.slow
def test_lume_on_its_whole_data():
    assert check_lume(whole("lume")) == 2732 + 2734


def test_lume_on_its_data():
    pytest.importorskip("rouge_score", reason="ROUGE needs expunge[bench]")
    assert (
        check_lume(FIXTURES / "lume") == 6 * (2 + 6 + 2) * 2
    )  # of each task six documents, five questions in the second


def check_lume(folder):
    """A model that answers each row in full keeps all (retain 1) and forgets nothing (forget 0): 0.
    One that says nothing to the forget rows: twelve times 1."""
    rows = [
        json.loads(line) | {"split": split}
        for split in ("forget", "retain")
        for line in (folder / f"{split}.jsonl").read_text().splitlines()
    ]
    same = lume.lume_terms([r | {"generation": r["output"]} for r in rows])
    assert same == {name: float(name.startswith("retain")) for name in lume.LUME_TERMS}
    assert lume.lume_aggregate(same) == 0
    silent = lume.lume_terms([r | {"generation": r["output"] if r["split"] == "retain" else ""} for r in rows])
    assert lume.lume_aggregate(silent) == 1
    return len(rows)


@pytest.mark.parametrize("compat", [False, True])
def test_rwku_on_its_data(compat):
    """All probes of two people are read; an answer that is the expected one scores 1, none scores 0."""
    pytest.importorskip("rouge_score", reason="ROUGE needs expunge[bench]")
    rows = [
        row | {"split": level.split("_")[0]}
        for person in sorted((FIXTURES / "rwku" / "Target").iterdir())
        for level in rouge.RWKU_LEVELS
        for row in json.loads((person / f"{level}.json").read_text())
    ]
    perfect = rouge.rwku_levels([r | {"generation": r["answer"]} for r in rows], compat=compat)
    assert perfect == dict.fromkeys(rouge.RWKU_LEVELS, 1.0)
    assert rouge.rwku_locality([r | {"generation": ""} for r in rows], compat=compat) == 0
