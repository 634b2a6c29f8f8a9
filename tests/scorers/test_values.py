"""What a scorer returns is looked at before anyone uses it."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.errors import InputError
from expunge.scorers import checked


def test_good_values_pass_as_they_are():
    assert checked(lambda texts: np.array([0, 1, 0.5]), "mine")(["a", "b", "c"]).tolist() == [0, 1, 0.5]
    assert checked(lambda texts: [True, False], "mine")(["a", "b"]).dtype == np.float64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5], r"mine gave values of shape \(1,\) for 2 texts"),
        ([[0.5, 0.5]], r"shape \(1, 2\)"),
        ([[0.5], [0.5]], r"shape \(2, 1\)"),
        (0.5, r"shape \(\)"),
        ([0.5, float("nan")], "mine gave nan for text 1"),
        ([1.01, 0.5], "mine gave 1.01 for text 0"),
        ([0.5, -0.01], "mine gave -0.01 for text 1"),
        ([0.5, float("inf")], "gave inf for text 1"),
        (["x", 0.5], "mine gave something that is no number"),
        ([0.5, {}], "no number for each text"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(InputError, match=message):
        checked(lambda texts: values, "mine")(["a", "b"])


def test_an_input_error_of_the_scorer_comes_through():
    def fails(texts):
        raise InputError("needs a package")

    with pytest.raises(InputError, match=r"^needs a package$"):
        checked(fails, "mine")(["a"])


def test_texts_must_be_a_list_of_texts_and_none_is_fine():
    def never(texts):
        raise AssertionError

    assert checked(never, "mine")([]).shape == (0,)
    for texts in ("abc", [1], ["a", None]):
        with pytest.raises(InputError, match="mine takes a list of texts"):
            checked(never, "mine")(texts)
