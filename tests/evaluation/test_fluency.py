"""Figures of judged answers: by hand, and what is not judged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expunge.evaluation import fluency
from expunge.evaluation.metrics import fluency as metrics
from expunge.evaluation.table import Collected, Generated, Scored

TEXTS = ["a b a b a b", "She writes novels.", " ", "x"]


def table(texts=TEXTS, ends=True):
    answers = tuple(Generated("forget", i, "answer", "right", text) for i, text in enumerate(texts))
    scored = [
        Scored("forget", i, fluency.ANSWER_VARIANT, text, logp, logp, -logp, logp > -1, ends, note=repr(share))
        for i, (text, logp, share) in enumerate(
            [
                (TEXTS[0], np.float32([-1, -3, -9]), 1.0),
                (TEXTS[1], np.float32([-0.5, -0.5, -9]), 0.75),
                (TEXTS[3], np.float32([-2, -9]), 0.0),
            ]
        )
    ]
    scored[2] = Scored(**{**vars(scored[2]), "index": 3})
    return Collected(tuple(scored), answers)


def test_figures_by_hand():
    """The end token is not the answer's: it may have been cut off; an empty answer counts 0 and has no token."""
    made = {f.name: f for f in fluency.figures(table(), "forget")}
    assert made["answer_perplexity"].value == pytest.approx(math.exp((1 + 3 + 0.5 + 0.5 + 2) / 5))
    assert made["answer_repetition"].value == pytest.approx((0.5 + 0 + 0 + 0) / 4)
    assert made["answer_real_words"].value == pytest.approx((1 + 0.75 + 0 + 0) / 4)
    share = [1 - mean / math.log(50_000) for mean in (2, 0.5)]
    rows = [3 / (1 / share[0] + 2 + 1), 3 / (1 / share[1] + 1 + 1 / 0.75), 0, 0]
    assert made["fluency"].value == pytest.approx(sum(rows) / 4)
    assert all(f.low <= f.value <= f.high and f.n == 4 for f in made.values())
    assert fluency.means(table(), "forget") == {name: f.value for name, f in made.items()}
    found = fluency.answers(table(ends=False), "forget")
    assert found is not None and found.tokens.tolist() == [3, 3, 0, 2], "a text without an end token has only its own"


def test_what_is_not_judged_has_no_figures():
    plain = Collected((), table().answers)
    assert fluency.figures(plain, "forget") == [] and fluency.answers(table(), "retain") is None
    silent = fluency.means(Collected((), table(["", " "]).answers), "forget")
    assert silent == {"answer_repetition": 0, "answer_real_words": 0, "fluency": 0}, "no answer needs no judge"


def test_an_answer_of_one_word_over_and_over_is_not_fluent():
    loop, plain = "the " * 12, "She writes novels about the sea."
    both = metrics.fluency([loop, plain], [2.0, 2.0], [1.0, 1.0])
    assert both[0] < 0.3 < 0.9 < both[1]


WAS = {"fluency": 0.95, "answer_perplexity": 2.0, "answer_repetition": 0.0, "answer_real_words": 0.9}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer_perplexity": 900.0}, "perplexity (900, before 2)"),
        ({"answer_repetition": 0.9}, "repetition (0.9, before 0)"),
        ({"answer_real_words": 0.1}, "real words (0.1, before 0.9)"),
    ],
)
def test_a_warning_names_the_figure_that_fell_most(change, said):
    (warning,) = fluency.less_fluent(WAS, WAS | {"fluency": 0.4} | change)
    assert said in warning and "0.40, before 0.95" in warning
    assert fluency.less_fluent(WAS, WAS | {"fluency": 0.48} | change) == []
    assert fluency.less_fluent({}, WAS) == fluency.less_fluent(WAS, {}) == []
