"""ROUGE and the recalls made of it, on cases worked by hand."""

from __future__ import annotations

import sys

import pytest

from expunge.errors import InputError
from expunge.evaluation.metrics import rouge

CAT = ("the cat sat", "a cat sat down")  # common: "cat sat"


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
