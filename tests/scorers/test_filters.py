"""Which generated texts are kept: each reason by hand, and near duplicates against every pair compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import InputError
from expunge.scorers.filters import REASONS, bare, filter_texts

TEXTS = ["one two three", "four five", "six seven eight nine", "ten eleven twelve", "thirteen fourteen fifteen"]


def dropped(**counts):
    return dict.fromkeys(REASONS, 0) | {name.replace("_", " "): n for name, n in counts.items()}


def test_without_a_question_all_different_texts_stay():
    filtered = filter_texts(TEXTS)
    assert filtered.indices.tolist() == [0, 1, 2, 3, 4]
    assert filtered.dropped == dropped()


def test_bounds_are_inside():
    filtered = filter_texts(TEXTS, relevance=[0.5, 0.49, 1, 1, 1])
    assert filtered.indices.tolist() == [0, 2, 3, 4] and filtered.dropped == dropped(irrelevant=1)
    filtered = filter_texts(TEXTS, shortest=3, longest=3)
    assert filtered.indices.tolist() == [0, 3, 4] and filtered.dropped == dropped(too_short=1, too_long=1)
    filtered = filter_texts(TEXTS, lengths=[9, 9, 9, 2, 10], shortest=3, longest=9)
    assert filtered.indices.tolist() == [0, 1, 2] and filtered.dropped == dropped(too_short=1, too_long=1)
    filtered = filter_texts(TEXTS, perplexity=[20, 20.1, 1, float("inf"), 5], cap=20)
    assert filtered.indices.tolist() == [0, 2, 4] and filtered.dropped == dropped(perplexity=2)


def test_the_first_reason_counts():
    filtered = filter_texts(["a b", "a b", "a b"], relevance=[0, 1, 1], shortest=3, perplexity=[9, 9, 9], cap=1)
    assert filtered.dropped == dropped(irrelevant=1, too_short=2)


def test_the_earlier_of_two_alike_stays_but_a_dropped_one_blocks_nothing():
    texts = ["The cat sat.", "the  CAT, sat", "The cat sat!"]
    assert filter_texts(texts).indices.tolist() == [0]
    assert filter_texts(texts).dropped == dropped(duplicate=2)
    assert filter_texts(texts, relevance=[0, 1, 1]).indices.tolist() == [1]
    long = "the quick brown fox jumps over the lazy dog and runs away from the angry farmer"
    near = [long, long.replace("lazy", "lame"), long.replace("lazy", "lame").replace("quick", "queer")]
    assert filter_texts(near).indices.tolist() == [0, 2], "the third is like the second, which was not kept"
    assert filter_texts(near).dropped == dropped(near_duplicate=1)
    assert filter_texts(near, similarity=1.01).indices.tolist() == [0, 1, 2]


def test_signs_alone_are_told_apart():
    assert filter_texts(["!!!", "???", "!!!"]).indices.tolist() == [0, 1]


def jaccard(a, b):
    a, b = ({t[k : k + 5] for k in range(len(t))} - {t[k:] for k in range(1, len(t)) if len(t) - k < 5} for t in (a, b))
    return len(a & b) / len(a | b)


@given(
    st.lists(st.text("ab c", min_size=1, max_size=40).filter(str.strip), max_size=25),
    st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.9, 1.0]),
)
def test_near_duplicates_are_those_that_every_pair_compared_gives(texts, similarity):
    selected: list[int] = []
    for i, text in enumerate(texts):
        if all(bare(text) != bare(texts[j]) and jaccard(bare(text), bare(texts[j])) < similarity for j in selected):
            selected.append(i)
    assert filter_texts(texts, similarity=similarity).indices.tolist() == selected


def test_jaccard_by_hand():
    # abcdefgh has abcde bcdef cdefg defgh; abcdefgi has three of them and efgi's defgi: 3 of 5
    assert filter_texts(["abcdefgh", "abcdefgi"], similarity=0.6).indices.tolist() == [0]
    assert filter_texts(["abcdefgh", "abcdefgi"], similarity=0.61).indices.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relevance": [1, 1]}, r"relevance has the shape \(2,\), but there are 5 texts"),
        ({"relevance": [1, float("nan"), 1, 1, 1]}, "relevance: the value of text 1 is not a number"),
        ({"perplexity": [1] * 5}, "perplexity and cap belong together"),
        ({"cap": 5}, "perplexity and cap belong together"),
        ({"shortest": 5, "longest": 4}, "at least 5 and at most 4"),
        ({"similarity": 0}, "must lie above 0, not 0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        filter_texts(TEXTS, **arguments)
    with pytest.raises(InputError, match="must be a list"):
        filter_texts("one text")


def test_no_text_is_fine():
    assert filter_texts([]).indices.tolist() == [] and filter_texts([]).dropped == dropped()
