"""Every metric on a case worked by hand, its limits, and the sentence bad input gets."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.metrics import lume, rouge

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
    assert metrics.mean([1, 2, 6]) == 3


# ── texts ──

CAT = ("the cat sat", "a cat sat down")  # common: "cat sat"


@pytest.fixture
def scorer():
    pytest.importorskip("rouge_score", reason="ROUGE needs expunge[bench]")


@pytest.mark.usefixtures("scorer")
@pytest.mark.parametrize(
    ("part", "value"),
    [("recall", 2 / 3), ("precision", 2 / 4), ("f1", 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))],
)
def test_rouge(part, value):
    """ "cat sat" of three expected and four given words.  Order counts for rougeL alone: "sat cat" has both words,
    one in order."""
    assert rouge.rouge(*([t] for t in CAT), part=part) == pytest.approx([value])
    assert rouge.rouge(["cat sat"], ["sat cat"], kind="rouge1", part=part) == pytest.approx([1])
    assert rouge.rouge(["cat sat"], ["sat cat"], kind="rougeL", part=part) == pytest.approx([1 / 2])
    assert rouge.rouge(["cat sat"], ["sat cat"], kind="rouge2", part=part) == pytest.approx([0])


@pytest.mark.usefixtures("scorer")
def test_rouge_with_and_without_stemmer():
    """ "running" and "runs" have the stem "run": 1 of 1 with stemmer, 0 without.  Case never counts; nothing given: 0."""
    assert rouge.rouge(["running", "Cat", "cat"], ["runs", "cAT", ""]).tolist() == [1, 1, 0]
    assert rouge.rouge(["running", "Cat", "cat"], ["runs", "cAT", ""], stemmer=False).tolist() == [0, 1, 0]


@pytest.mark.usefixtures("scorer")
@pytest.mark.parametrize("memorisation", [rouge.verbatim_memorisation, rouge.knowledge_memorisation])
def test_muse_is_f1_without_stemmer(memorisation):
    """ "the cats sat" / "the cat sat": "the sat", recall 2/3, precision 2/3, F1 2/3; OpenUnlearning's stemmer makes it 1.
    "two crew members" / "two crew members died": recall 1, precision 3/4, F1 6/7."""
    expected, generated = ["the cats sat", "two crew members"], ["the cat sat", "two crew members died"]
    assert memorisation(expected, generated) == pytest.approx([2 / 3, 6 / 7])
    assert rouge.rouge(expected, generated, part="f1") == pytest.approx([1, 6 / 7])


@pytest.mark.usefixtures("scorer")
def test_rwku_recall_without_stemmer():
    """Both words, whatever their case and the comma: 1.  "album" of "albums": 0.  One of two: 1/2."""
    expected, generated = ["Richard Bachman", "albums", "New York"], ["richard bachman, I think", "album", "York"]
    assert rouge.rwku_recall(expected, generated) == pytest.approx([1, 0, 1 / 2])


@pytest.mark.parametrize(
    ("expected", "generated", "value"),
    [
        ("Richard Bachman", "richard bachman, I think", 0),  # case and comma keep words apart
        ("Richard Bachman", "It is Richard Bachman.", 1),  # a full stop does not
        ("the cat and the dog", "the dog", 2 / 4),  # 4 distinct words: the, cat, and, dog
        ("a b. c d", "d. b a", 2 / 4),  # sentence pairs: {} and {a} or {b}, {d} and {}: 2 of 4
        ("My World", "", 0),
        ("4.6 million. Dollars", "about 4.6 million", 3 / 4),  # words 4, 6, million, Dollars
        ("a b", "a b c a", 1),  # the longest subsequence, not the one that the last word starts
        ("a b", "b a . b", 1 / 2),  # of "b a" the common word is "b": the generated text's later words go first
        ("a . .", "a", 1 / 2),  # a blank sentence is one empty word: a and ""
        ("a. ", "b. ", 0),  # words a and "" (a blank sentence); the generated text is stripped, so it has no ""
    ],
)
def test_rwku_recall_as_published(expected, generated, value):
    """Distinct words in the common subsequence of any two sentences; the numbers are also those of ``rouge`` 1.0.1."""
    assert rouge.rwku_recall([expected], [generated], compat=True) == pytest.approx([value])


def probe(split, level, generated):
    return {"split": split, "level": level, "answer": "one two", "generation": generated}


@pytest.mark.usefixtures("scorer")
def test_rwku_levels_and_locality():
    """forget level 1: (1 + 0)/2; level 3: 1/2.  Neighbours: level 1 (1, 1, 0), level 2 (0): by level 2/3 and 0, over all
    four 2/4 (the levels' mean would be 1/3)."""
    rows = [
        probe("forget", "1", "one two"),
        probe("forget", "1", ""),
        probe("forget", 3, "two"),
        *(probe("neighbor", "1", g) for g in ("one two", "one two three", "none")),
        probe("neighbor", "2", ""),
    ]
    levels = rouge.rwku_levels(rows)
    assert levels == pytest.approx(
        {"forget_level1": 1 / 2, "forget_level3": 1 / 2, "neighbor_level1": 2 / 3, "neighbor_level2": 0}
    )
    assert rouge.rwku_locality(rows) == pytest.approx(1 / 2)
    shouted = [probe("neighbor", 1, "ONE TWO")]
    assert (rouge.rwku_locality(shouted), rouge.rwku_locality(shouted, compat=True)) == (1, 0)
    assert rouge.rwku_levels(shouted, compat=True) == {"neighbor_level1": 0}
    with pytest.raises(InputError, match="split 'neighbor', and there is none"):
        rouge.rwku_locality(rows[:3])
    with pytest.raises(InputError, match="row 0 is of neighbor_level3"):
        rouge.rwku_levels([probe("neighbor", 3, "one")])
    with pytest.raises(InputError, match="row 0 has no answer, generation"):
        rouge.rwku_levels([{"split": "forget", "level": 1}])
    with pytest.raises(InputError, match="there is no row"):
        rouge.rwku_levels([])


def test_rouge_without_the_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(InputError, match=r"pip install 'expunge\[bench\]'"):
        rouge.rouge(["a"], ["a"])


# ── LUME ──


def lume_rows():
    """Of each split and task one sc row (four words) and two qa rows, all answered in full."""
    return [
        {"id": f"{split}{task}{kind}", "split": split, "task": task, "output": text, "generation": text}
        for split in ("forget", "retain")
        for task in ("Task1", "Task2", "Task3")
        for kind, text in (("sc1", "one two three four"), ("qa0", "Ada"), ("qa1", "Bo"))
    ]


@pytest.mark.usefixtures("scorer")
def test_lume_terms():
    """All answered in full: retain terms 1, forget terms 0.  Three of four words of forget Task1's sentence: 1 - 3/4.
    Of retain Task2's two questions one answered as " ADA ", one with a word too many: 1/2.  The stem counts in sc rows."""
    rows = lume_rows()
    terms = lume.lume_terms(rows)
    assert tuple(terms) == lume.LUME_TERMS
    assert terms == {name: float(name.startswith("retain")) for name in lume.LUME_TERMS}
    change = {
        "forgetTask1sc1": "one three four",
        "retainTask2qa0": " ADA ",
        "retainTask2qa1": "Bo it is",
        "retainTask3sc1": "ones two three four",
        "retainTask3qa0": "",
    }
    terms = lume.lume_terms([r | {"generation": change.get(r["id"], r["generation"])} for r in rows])
    assert terms["forget_Task1_regurgitation"] == pytest.approx(1 / 4)
    assert terms["retain_Task2_knowledge"] == pytest.approx(1 / 2)
    assert terms["retain_Task3_regurgitation"] == 1
    assert terms["retain_Task3_knowledge"] == 1 / 2  # an empty answer is empty, not "nan"


def test_lume_scores():
    """Eleven 1 and one 1/2: 12 / 13.  One 0: 0.  AUC 0.8 and 0.2: 1 - 2 * 0.3.  (0.9 + 0.6 + 0.3) / 3 = 0.6."""
    terms = dict.fromkeys(lume.LUME_TERMS, 1.0)
    assert len(terms) == 12
    assert lume.lume_aggregate(terms | {"forget_Task2_knowledge": 0.5}) == pytest.approx(12 / 13)
    assert lume.lume_aggregate(terms | {"forget_Task2_knowledge": 0.0}) == 0
    assert [lume.lume_mia_final(a) for a in (0.8, 0.2, 0.5, 1)] == pytest.approx([0.4, 0.4, 1, 0])
    assert lume.lume_final(0.9, 0.6, 0.3) == pytest.approx(0.6)
    with pytest.raises(InputError, match="lacks retain_Task3_knowledge"):
        lume.lume_aggregate(dict.fromkeys(lume.LUME_TERMS[:-1], 1.0))
    with pytest.raises(InputError, match=r"auc must lie between 0 and 1, not 1\.2"):
        lume.lume_mia_final(1.2)
    with pytest.raises(InputError, match=r"mmlu must lie between 0 and 1, not 44\.3"):
        lume.lume_final(0.5, 0.5, 44.3)
    with pytest.raises(InputError, match="mia must"):
        lume.lume_final(0.5, NAN, 0.4)
    with pytest.raises(InputError, match="aggregate must"):
        lume.lume_final(-1, 0.5, 0.4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "a-qx1"}, "does not end with sc or qa and a digit"),
        ({"task": "Task4"}, "task 'Task4'"),
        ({"split": "holdout"}, "split 'holdout'"),
        (
            {"generation": NAN},
            "output and generation of row x-sc1 must be texts",
        ),
        ({"id": "forgetTask1sc1"}, "row forgetTask1sc1 of the forget split is there twice"),
    ],
)
def test_lume_rows_that_are_none(change, says):
    row = {"id": "x-sc1", "split": "forget", "task": "Task1", "output": "one", "generation": "one"}
    with pytest.raises(InputError, match=says):
        lume.lume_terms([*lume_rows(), row | change])


def test_lume_needs_all_twelve_terms():
    rows = [r for r in lume_rows() if "Task2" not in r["task"] or r["split"] == "retain"]
    with pytest.raises(InputError, match=r"none for forget_Task2_regurgitation, forget_Task2_knowledge$"):
        lume.lume_terms(rows)
    with pytest.raises(InputError, match="row 0 has no output, generation"):
        lume.lume_terms([{"id": "xsc1", "split": "forget", "task": "Task1"}])


# ── bad input ──

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


@pytest.mark.usefixtures("scorer")
def test_an_expected_text_without_a_word_for_rouge():
    assert rouge.rouge(["a", "東京", "…"], ["a", "東京", "…"]).tolist() == [1, 0, 0]
    for compat in (False, True):
        assert rouge.rwku_recall(["東京 都", "..", "b"], ["東京 市", "x", "b"], compat=compat).tolist() == [0.5, 0, 1]


@pytest.mark.usefixtures("scorer")
def test_bad_rouge_input():
    with pytest.raises(InputError, match="kind must be"):
        rouge.rouge(["a"], ["a"], kind="rouge")
    with pytest.raises(InputError, match="part must be"):
        rouge.rouge(["a"], ["a"], part="fmeasure")
    with pytest.raises(InputError, match="2 expected texts and 1 given"):
        rouge.rouge(["a", "b"], ["a"])
