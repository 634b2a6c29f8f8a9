"""A step's rows shared by several processes: even, or refused with the numbers that are."""

from __future__ import annotations

import pytest

from expunge.errors import InputError
from expunge.training.shares import PARTS, ROWS, divided

SUITED = {ROWS: 8, PARTS: 2}


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 16])
def test_a_step_has_the_same_rows(processes):
    shared = divided(SUITED, {}, 400, processes)
    assert shared[ROWS] * shared[PARTS] * processes == 16


def test_what_the_user_gave_stays():
    assert divided(SUITED | {ROWS: 3}, {ROWS: 3}, 400, 5) == {ROWS: 3, PARTS: 2}
    assert divided(SUITED, {PARTS: 2}, 400, 4) == {ROWS: 2, PARTS: 2}


def test_a_batch_that_is_the_whole_set_is_shared_as_evenly_as_it_can_be():
    assert divided({ROWS: 3, PARTS: 1}, {}, 3, 2)[ROWS] == 2


@pytest.mark.parametrize(
    ("suited", "given", "rows"),
    [
        (SUITED, {}, r"a step of 16 rows evenly: start as many as divide it \(1, 2, 4, 8, 16\)"),
        (SUITED, {PARTS: 2}, r"a batch of 8 rows evenly: start as many as divide it \(1, 2, 4, 8\)"),
        ({ROWS: 1, PARTS: 1}, {}, r"a step of 1 rows evenly: start as many as divide it \(1\)"),
    ],
)
def test_what_does_not_divide_is_refused(suited, given, rows):
    with pytest.raises(InputError, match=f"^3 processes cannot share {rows}, or give {ROWS}"):
        divided(suited, given, 400, 3)
