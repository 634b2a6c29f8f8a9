"""A run that forgot nothing says so."""

from __future__ import annotations

import pytest

from expunge.unlearning.measure import unmoved


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (2.0, 2.5, None),
        (2.0, 2.01, "as well as before"),
        (2.0, 1.99, "as well as before"),
        (2.0, 1.5, "better than before"),
        (0.001, 0.00105, "as well as before"),
        (0.001, 0.5, None),
        (2.0, float("inf"), None),
    ],
)
def test_the_forget_figure_decides(before, after, said):
    warnings = unmoved({"forget": {"nll": before}}, {"forget": {"nll": after}})
    assert bool(warnings) == bool(said)
    assert not said or said in warnings[0]


def test_the_methods_own_parameters_are_named():
    figures = {"forget": {"nll": 2.0}}
    assert (
        "a lower retain_weight, a larger steering_coefficient or another"
        in unmoved(figures, figures, ["layer", "retain_weight", "steering_coefficient"])[0]
    )
    assert "retain_weight" not in unmoved(figures, figures, ["beta"])[0]


def test_a_model_that_cannot_be_measured_is_no_unmoved_one():
    assert unmoved({"forget": {"nll": 2.0}}, {}) == []
