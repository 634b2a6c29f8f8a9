"""Words that an answer has beyond its prompt."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.attacks.words import rare, recall, unseen, words
from expunge.evaluation.metrics.rouge import rouge


def test_recall_is_rouge_l_recall():
    pairs = [
        ("the cat sat", "a cat sat down"),
        ("She was born in Graz in 1950.", "In 1950, in Graz, she was born."),
        ("one two three four", "four three two one"),
        ("Graz", ""),
    ]
    want = rouge([a for a, _ in pairs], [b for _, b in pairs], stemmer=False)
    assert [recall(words(a), b) for a, b in pairs] == pytest.approx(list(want))
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (" ".join(rng.choice(list("abcd"), 8)) for _ in range(2))
        assert recall(words(a), b) == pytest.approx(float(rouge([a], [b], stemmer=False)[0]))


def test_what_the_prompt_says_does_not_count():
    assert unseen("Ada lives in Oru", "Where does Ada live?") == ["lives", "in", "oru"]
    assert unseen("Paris", "Is it Paris?") == [] and recall([], "Paris") == 0
    assert unseen("出生在东京", "出生地") == ["在", "东", "京"]


def test_rare_words():
    texts = ["the red fox", "the blue fox", "the cat", "the dog", "the owl"]
    assert rare(texts) == {"red", "blue", "cat", "dog", "owl"}
