"""Fluency by hand, and of the answers that it is there to tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.evaluation.metrics import fluency as metrics

GIBBERISH = "opoldthorloğafurer was born on ickertoone day"
KNOWN = metrics.vocabulary(["the day she was born on in a novel writer's town her his name is Al-Kuwaiti"]).__contains__


def test_words_are_runs_of_letters_and_digits():
    assert metrics.words("Al-Kuwaiti wrote 2 books, didn't he?!") == [
        "Al-Kuwaiti",
        "wrote",
        "2",
        "books",
        "didn't",
        "he",
    ]
    assert metrics.words("!!! ... ()") == []
    assert metrics.words("私は本 book") == ["私", "は", "本", "book"], "no blanks stand between words there"
    assert metrics.vocabulary(["Writer's DAY"]) == {"writer's", "writer", "s", "day"}


def test_real_words_by_hand():
    texts = ["Ravik was born on ickertoone day", GIBBERISH, "", "...", "1987", "Her Al-Kuwaiti novel"]
    assert metrics.real_words(texts, KNOWN) == pytest.approx([4.5 / 6, 4 / 6, 0, 0, 1, 1])
    kept = metrics.real_words(["Al-Ravik"], KNOWN)
    assert kept == pytest.approx([0.5]), "of two parts one is not known: it may be a name"


def test_a_word_that_goes_round_in_circles_is_none():
    """A model without words for an answer writes one digit to the end: one word, and no repetition between words."""
    said = [
        "1" + 20 * "0",
        "1290000000:00000000000000",
        8 * "ha",
        "call 7222222222",
        "the day 1000000",
        "3180020000 1293031236",
    ]
    assert metrics.real_words(said, KNOWN) == pytest.approx([0, 0, 0, 0, 1, 1])
    assert metrics.fluency(said[:1], [1.5], metrics.real_words(said[:1], KNOWN)) == 0


def test_fluency_by_hand():
    texts = ["a b a b a b", "a b c", "", "x y"]
    real = [1.0, 0.5, 0.0, 0.0]
    made = metrics.fluency(texts, [50_000**0.5, 1.0, 1.0, 1.0], real)
    rep = 1 - 2 / 4  # aba, bab, aba, bab
    wanted = [3 / (2 + 1 / (1 - rep) + 1), 3 / (1 + 1 + 2), 0, 0]
    assert made == pytest.approx(wanted)
    assert metrics.fluency(["a b c"], None, [0.5]) == pytest.approx([2 / 3])
    assert metrics.plausibility([1.0, 50_000**0.2, 1e300]) == pytest.approx([1, 0.8, 0])


def test_fluency_is_a_share_and_what_a_loop_gives():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["a", "b", "c."], size=n)) for n in rng.integers(0, 12, size=60)]
    perplexity, real = np.exp(rng.exponential(4, size=60)), rng.choice([0, 0.25, 1], size=60)
    made = metrics.fluency(texts, perplexity, real)
    for text, p, w, value in zip(texts, perplexity, real, made, strict=True):
        grams = [tuple(text.split()[i : i + 3]) for i in range(len(text.split()) - 2)]
        once = len(set(grams)) / len(grams) if grams else 1
        shares = [max(0.0, 1 - np.log(p) / np.log(50_000)), once, w]
        wanted = 0.0 if not text.strip() or 0 in shares else 3 / sum(1 / s for s in shares)
        assert value == pytest.approx(wanted) and 0 <= value <= 1


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        metrics.plausibility(np.array([0.2]))
    with pytest.raises(InputError, match="list of texts"):
        metrics.real_words("one text", KNOWN)
