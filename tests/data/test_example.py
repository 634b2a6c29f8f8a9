"""A few of many rows."""

from collections import Counter

import pytest

from expunge.data.example import evenly


@pytest.mark.parametrize(("many", "few"), [(160, 32), (400, 20), (33, 32), (10_000, 64)])
def test_one_row_of_each_part(many, few):
    chosen = evenly(range(many), few)
    parts = [range(i * many // few, (i + 1) * many // few) for i in range(few)]
    assert len(chosen) == few and all(row in part for row, part in zip(chosen, parts, strict=True))
    assert chosen == evenly(range(many), few)


def test_rows_that_repeat_themselves_are_there_with_every_kind():
    """Five questions about each of 32 people, one row of each: none asked of more than half of them, each of some."""
    asked = Counter(i % 5 for i in evenly(range(160), 32))
    assert len(asked) == 5 and max(asked.values()) <= 16


def test_few_rows_are_all_there():
    assert evenly([3, 1, 2], 3) == [3, 1, 2] and evenly([], 4) == []
