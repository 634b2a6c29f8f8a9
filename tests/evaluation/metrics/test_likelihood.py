"""Every metric on log-probabilities on a case worked by hand, its limits, and the sentence bad input gets."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.metrics import rouge

NAN = math.nan


def ln(*values):
    return np.log(values)


def test_scores_can_be_recomputed_without_torch():
    """A fresh interpreter imports LUME, which needs the other modules: neither torch nor rouge-score comes along."""
    code = "import sys, expunge.evaluation.metrics.lume; print(*{'torch', 'rouge_score'} & {*sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


# ── log-probabilities ──


def test_probability_is_the_exponential_of_the_mean_log_probability():
    """Two tokens of probability 1/2 and 1/8: sqrt(1/16) = 1/4.  One certain token: 1.  An impossible one: 0."""
    means = [(ln(1 / 2) + ln(1 / 8))[0] / 2, 0.0, -math.inf]
    assert metrics.probability(means) == pytest.approx([1 / 4, 1, 0])


def test_normalised_probability():
    """(1/2) / (1/2 + 1/4 + 1/4) = 1/2; (1/8) / (1/8 + 1/2 + 1/4) = 1/7."""
    got = metrics.normalised_probability(ln(1 / 2, 1 / 8), [ln(1 / 4, 1 / 4), ln(1 / 2, 1 / 4)])
    assert got == pytest.approx([1 / 2, 1 / 7])


def test_normalised_probability_of_a_destroyed_model_is_still_a_preference():
    """e^-900 against e^-901: 1 / (1 + 1/e) = 0.731, though both are 0 in a float.  With 1e-10 below the fraction: 0."""
    right, wrong = [-900.0], [[-901.0]]
    assert metrics.normalised_probability(right, wrong) == pytest.approx([1 / (1 + math.exp(-1))])
    assert metrics.normalised_probability(right, wrong, compat=True) == [0]
    # 1e-10 / (1e-10 + 2e-10 + 1e-10) = 1/4 instead of 1/3
    assert metrics.normalised_probability(ln(1e-10), [ln(1e-10, 1e-10)], compat=True) == pytest.approx([1 / 4])


def test_truth_ratio_is_a_geometric_mean_over_the_paraphrase():
    """Wrong (1/4, 1/16): geometric mean 1/8 (arithmetic 5/32); over 1/2 gives 1/4.  (1/2, 1/2) over 1/8 gives 4."""
    got = metrics.truth_ratio(ln(1 / 2, 1 / 8), [ln(1 / 4, 1 / 16), ln(1 / 2, 1 / 2)])
    assert got == pytest.approx([1 / 4, 4])
    # with 1e-10 below: 1e-10 / (1e-10 + 1e-10) = 1/2 instead of 1
    assert metrics.truth_ratio(ln(1e-10), [ln(1e-10)], compat=True) == pytest.approx([1 / 2])
    assert metrics.truth_ratio(ln(1e-10), [ln(1e-10)]) == pytest.approx([1])


def test_truth_ratio_reaches_its_limits_without_a_warning():
    """An impossible paraphrase: r = inf, worth min(r, 1/r) = 0, max(0, 1 - r) = 0, 1/(1 + r) = 0.
    An impossible wrong answer: r = 0, worth 0, 1, 1."""
    r = metrics.truth_ratio([-math.inf, -1.0, -900.0], [[-1.0], [-math.inf], [-1.0]])
    assert r.tolist() == [math.inf, 0, math.inf]
    with np.errstate(all="raise"):
        assert [f(r[:1]) for f in (metrics.closer_to_1_better, metrics.true_better, metrics.prob_mean)] == [0, 0, 0]
        assert [f(r[1:2]) for f in (metrics.closer_to_1_better, metrics.true_better, metrics.prob_mean)] == [0, 1, 1]


def test_the_three_aggregations_of_the_truth_ratio():
    """r = (1/2, 4): min(r, 1/r) = (1/2, 1/4), mean 3/8; max(0, 1 - r) = (1/2, 0), mean 1/4; 1/(1 + r) = (2/3, 1/5),
    mean 13/30."""
    assert metrics.closer_to_1_better([1 / 2, 4]) == pytest.approx(3 / 8)
    assert metrics.true_better([1 / 2, 4]) == pytest.approx(1 / 4)
    assert metrics.prob_mean([1 / 2, 4]) == pytest.approx(13 / 30)
    assert metrics.closer_to_1_better([4], compat=True) == 1 / (4 + 1e-10) != 1 / 4


# ── greedy hits ──

RIGHT_END = [True, False, True, True]  # EM 3/4, k* = 2
WRONG_END = [True, True, False]  # EM 2/3, k* = T


def test_exact_memorisation():
    """3 of 4, 2 of 3, 0 of 2; without the last position 2 of 3, 2 of 2, 0 of 1."""
    hits = [RIGHT_END, WRONG_END, [False, False]]
    assert metrics.exact_memorisation(hits) == pytest.approx([3 / 4, 2 / 3, 0])
    assert metrics.exact_memorisation(hits, compat=True) == pytest.approx([2 / 3, 1, 0])


def test_extraction_strength_is_0_where_nothing_matches():
    """k* = 2 of 4: 1/2.  Wrong last token: 0.  All right: k* = 0, so 1.  One token, wrong: 0."""
    hits = [RIGHT_END, WRONG_END, [True, True], [False]]
    assert metrics.extraction_strength(hits) == pytest.approx([1 / 2, 0, 1, 0])


def test_extraction_strength_as_openunlearning_has_it():
    """Last dropped, then 1/T where nothing matches: right-wrong-right: k* = 2 of 3, 1/3.  right-right: 1.
    wrong-wrong-wrong (and a last one): nothing matches, 1/3 where ours is 0."""
    hits = [RIGHT_END, WRONG_END, [False] * 4]
    assert metrics.extraction_strength(hits, compat=True) == pytest.approx([1 / 3, 1, 1 / 3])
    assert metrics.extraction_strength([h[:-1] for h in hits]) == pytest.approx([1 / 3, 1, 0])


# ── aggregates over a benchmark ──


def test_forget_quality():
    """Equal samples: distance 0, p = 1.  (1, 2, 3) against (4, 5, 6): distance 1, 2 of C(6,3) = 20 orders: p = 0.1."""
    assert metrics.forget_quality([1, 2, 3], [1, 2, 3]) == pytest.approx(1)
    assert metrics.forget_quality([1, 2, 3], [4, 5, 6]) == pytest.approx(0.1)


def test_model_utility_is_the_harmonic_mean_of_nine_named_parts():
    """Eight times 1 and 1/2: 9 / (8 + 2) = 0.9.  One 0: 0."""
    parts = dict.fromkeys(metrics.UTILITY_PARTS, 1.0)
    assert len(parts) == 9
    assert metrics.model_utility(parts | {"retain_rouge": 0.5}) == pytest.approx(0.9)
    assert metrics.model_utility(parts | {"world_facts_truth_ratio": 0.0}) == 0
    with pytest.raises(InputError, match="lacks retain_rouge, world_facts_probability"):
        metrics.model_utility({k: 1.0 for k in parts if k not in ("retain_rouge", "world_facts_probability")})
    with pytest.raises(InputError, match="knows no forget_rouge"):
        metrics.model_utility(parts | {"forget_rouge": 1.0})
    with pytest.raises(InputError, match="retain_rouge must lie between 0 and 1, not nan"):
        metrics.model_utility(parts | {"retain_rouge": NAN})


def test_choices():
    """p = (0.3, 0.1, 0.1): option 0 is right, accuracy 1, probability 0.3, of 0.5 among the options 0.6.
    p = (0.1, 0.2, 0.2), option 2 right: the first of the two likeliest counts, 0; 0.2; 0.2/0.5 = 0.4."""
    logp, right = [ln(0.3, 0.1, 0.1), ln(0.1, 0.2, 0.2)], [0, 2]
    assert metrics.choice_accuracy(logp, right).tolist() == [1, 0]
    assert metrics.choice_probability(logp, right) == pytest.approx([0.3, 0.2])
    assert metrics.choice_probability(logp, right, among_options=True) == pytest.approx([0.6, 0.4])
    far = [[-900.0, -901.0]]  # both 0 in a float
    assert metrics.choice_probability(far, [0], among_options=True) == pytest.approx([1 / (1 + math.exp(-1))])


def test_perplexity_weighs_tokens_not_texts():
    """(1/2) and (1/8, 1/8): exp((ln 2 + 2 ln 8)/3) = 2^(7/3).  The mean of the texts' 2 and 8 would be 5."""
    assert metrics.perplexity([ln(1 / 2), ln(1 / 8, 1 / 8)]) == pytest.approx(2 ** (7 / 3))


def test_mean():
    """(1 + 2 + 6) / 3 = 3."""


BAD = {
    "nan": (lambda: metrics.probability([-1, NAN]), "mean_logp: entry 1 is NaN"),
    "loss": (lambda: metrics.probability([-1, 2.5]), "mean_logp: entry 1 is above 0: pass log-probabilities"),
    "empty": (lambda: metrics.probability([]), "mean_logp is empty"),
    "shape": (lambda: metrics.probability([[-1.0]]), r"one number an example, not of shape \(1, 1\)"),
    "ragged": (lambda: metrics.truth_ratio([-1, -1], [[-1, -2], [-1]]), "wrong_logp must be one row of numbers"),
    "lengths": (lambda: metrics.truth_ratio([-1], [[-1], [-1]]), "paraphrase_logp has 1 examples, wrong_logp has 2"),
    "wrong nan": (lambda: metrics.truth_ratio([-1, -1], [[-1, -1], [-1, NAN]]), "wrong_logp: entry 1 is NaN"),
    "no ratio": (lambda: metrics.truth_ratio([-math.inf], [[-math.inf]]), "paraphrase_logp: entry 0 and a wrong"),
    "none likely": (lambda: metrics.normalised_probability([-math.inf], [[-math.inf]]), "every answer probability 0"),
    "ratio nan": (lambda: metrics.true_better([1, NAN]), "truth ratio: entry 1 is NaN"),
    "ratio log": (lambda: metrics.prob_mean([1, -2]), "truth ratio: entry 1 is negative"),
    "ratio empty": (lambda: metrics.closer_to_1_better([]), "truth ratio is empty"),
    "quality nan": (lambda: metrics.forget_quality([1, 2], [NAN]), "truth ratio: entry 0 is NaN"),
    "no hits": (lambda: metrics.exact_memorisation([]), "hits is empty"),
    "no token": (lambda: metrics.extraction_strength([[True], []]), "hits: example 1 has no token to score"),
    "only last": (
        lambda: metrics.exact_memorisation([[True]], compat=True),
        "example 0 has no token but its last to score",
    ),
    "not hits": (lambda: metrics.exact_memorisation([[0.5, 1]]), "hits: example 0 must be one true or false a token"),
    "choice shape": (lambda: metrics.choice_accuracy([[-1, -2]], [0, 1]), "1 whole numbers"),
    "choice float": (lambda: metrics.choice_accuracy([[-1, -2]], [0.0]), "whole numbers"),
    "choice range": (
        lambda: metrics.choice_accuracy([[-1, -2]], [2]),
        "right: entry 0 is no option number from 0 to 1",
    ),
    "choice below": (lambda: metrics.choice_probability([[-1, -2]], [-1]), "right: entry 0 is no option number"),
    "choice none": (lambda: metrics.choice_probability([[-math.inf] * 2], [0]), "every option probability 0"),
    "no text": (lambda: metrics.perplexity([]), "token_logp is empty"),
    "empty text": (lambda: metrics.perplexity([[-1], []]), "token_logp of text 1 is empty"),
    "mean nan": (lambda: metrics.mean([1, NAN]), "values: entry 1 is NaN"),
    "mean inf": (lambda: metrics.mean([1, math.inf]), "values: entry 1 is infinite"),
    "text count": (lambda: rouge.rwku_recall(["a"], [], compat=True), "1 expected texts and 0 given"),
    "text none": (lambda: rouge.rwku_recall([], [], compat=True), "no text to score"),
    "text nan": (lambda: rouge.rwku_recall(["a"], [NAN], compat=True), "given: entry 0 is not a text but nan"),
    "one text": (lambda: rouge.rwku_recall("a", "a", compat=True), "lists of texts, not one text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    call, says = BAD[case]
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
