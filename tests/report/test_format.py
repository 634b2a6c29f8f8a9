"""Numbers in words, each by hand."""

from __future__ import annotations

import math

import pytest

from expunge.report import format as words


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (words.probability, 0.995, "0.99"),
        (words.probability, 0.0499, "0.05"),
        (words.probability, 0.0149, "0.01"),
        (words.probability, 0.00994, "0.0099"),
        (words.probability, None, "–"),
        (words.percent, 0.9949, "99 %"),
        (words.percent, 0.0, "0 %"),
        (words.count, 134515008, "134\u202f515\u202f008"),
        (words.scale, 134515008, "134.5 M"),
        (words.scale, 1.24e9, "1.2 B"),
        (words.scale, 12, "12"),
        (words.duration, 8.24, "8.2 s"),
        (words.duration, 59.96, "1 min 0 s"),
        (words.duration, 123.4, "2 min 3 s"),
        (words.duration, 3 * 3600 + 5 * 60 + 20, "3 h 5 min"),
        (words.duration, None, "–"),
        (words.day, "2026-11-21T08:00:00+00:00", "21 November 2026, 08:00 UTC"),
        (words.day, "2026-01-02T23:05:00+02:00", "2 January 2026, 23:05 +0200"),
        (words.day, "last week", "last week"),
        (words.plain, {"r": 16}, '{"r": 16}'),
        (words.plain, None, "–"),
    ],
)
def test_in_words(function, value, expected: str):
    assert function(value) == expected


def test_bytes_are_decimal():
    assert words.scale(3_012_345_856, "B") == "3.0 GB"


def test_cells_have_three_decimals_and_rows_none():
    assert [words.cell("nll", v) for v in (3.104, 0.0, 0.0004, None)] == ["3.104", "0.000", "<0.001", "–"]
    assert words.cell("n", 40) == "40"


def test_number_takes_finite_numbers_only():
    record = {"a": {"x": 1.5, "nan": math.nan, "text": "1.5", "flag": True, "none": None}, "b": 3}
    assert words.number(record, "a", "x") == 1.5
    for path in (
        ["a", "nan"],
        ["a", "text"],
        ["a", "flag"],
        ["a", "none"],
        ["a", "missing"],
        ["b", "x"],
        ["c", "x"],
    ):
        assert words.number(record, *path) is None
