"""Repetition and distinct n-grams: numbers worked by hand, and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.evaluation.metrics.repetition import distinct, repetition


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("a b a b a", [3 / 5, 2 / 4, 1 / 3, 0]),
        ("no no no no no", [4 / 5, 3 / 4, 2 / 3, 1 / 2]),
        ("all words are different", [0, 0, 0, 0]),
        ("Two two two.", [0, 0, 0, 0]),  # case and punctuation tell words apart
        ("", [0, 0, 0, 0]),
        ("one", [0, 0, 0, 0]),
        ("a\nb  a\tb", [1 / 2, 1 / 3, 0, 0]),
    ],
)
def test_repetition_by_hand(text, shares):
    assert [repetition([text], n)[0] for n in (1, 2, 3, 4)] == pytest.approx(shares)


def test_texts_are_apart():
    assert repetition(["a b", "a b", "c c"], 1) == pytest.approx([0, 0, 1 / 2])
    assert distinct(["a b", "a b", "c c"], 1) == pytest.approx(3 / 6)
    assert distinct(["a b", "a b", "b a"], 2) == pytest.approx(2 / 3)  # no pair from one text into the next
    assert distinct(["", "a"], 2) == 0


def test_against_a_loop():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abc"), size=k)) for k in rng.integers(0, 12, size=30)]
    for n in (1, 2, 3):
        every, one_by_one = [], []
        for text in texts:
            words, seen, again = text.split(), [], 0
            for i in range(len(words) - n + 1):
                gram = words[i : i + n]
                again += gram in seen
                seen.append(gram)
            one_by_one.append(again / len(seen) if seen else 0)
            every += seen
        assert repetition(texts, n) == pytest.approx(one_by_one)
        assert distinct(texts, n) == pytest.approx(len({tuple(g) for g in every}) / len(every))


def test_bad_input():
    for f in (repetition, distinct):
        with pytest.raises(InputError, match="there is none"):
            f([], 1)
        with pytest.raises(InputError, match="a list of texts"):
            f("a text", 1)
        with pytest.raises(InputError, match="at least one word, not 0"):
            f(["a"], 0)
