"""Other names in place of those that the forget rows are about."""

from __future__ import annotations

import pytest
from perf import renamed

from expunge.data.example import Row


def row(question, answer, **more):
    return Row(({"role": "user", "content": question},), answer, **more)


ROWS = [
    row("What gender is author Basil Al-Kuwaiti?", "Author Basil Al-Kuwaiti is male."),
    row("In which city was Basil Al-Kuwaiti born?", "Basil Al-Kuwaiti was born in Kuwait City, Kuwait."),
    row("Where does Tovrin Askelund live?", "Tovrin lives in Klaksvík, as Askelund's brother does."),
    row("Which award did Tovrin Askelund receive?", "He received the Silver Sextant in 1997."),
    row("What did Al-Kuwaiti’s parents do?", "Basil Al-Kuwaiti's father was a florist."),
]


def test_names_are_what_several_rows_have_and_no_longer_than_that():
    """Neither "Author Basil Al-Kuwaiti" nor "Kuwait City" nor "Silver Sextant", which one row has."""
    assert renamed.names(ROWS) == [("Basil", "Al-Kuwaiti"), ("Tovrin", "Askelund")]
    more = [row("Who is Ada May Byron?", "Ada May Byron was a poet."), row("Who was Ada May Byron?", "A poet.")]
    assert renamed.names(more) == [("Ada", "May", "Byron")]  # not its parts
    many = [*ROWS, *(row(f"What is {n}?", "A number.") for n in range(60))]
    assert renamed.names(many) == []  # 3 of 65 rows
    assert renamed.names([*many, *ROWS[:1]]) == [("Basil", "Al-Kuwaiti")]  # 4 will do
    assert renamed.names([row("Who? Ada. Byron?", "ada byron, Ada, Byron")] * 3) == []


@pytest.mark.parametrize("number", [0, 1, 2, 9])
def test_each_word_of_a_name_is_another_everywhere(number):
    words = renamed.others(renamed.names(ROWS), number)
    assert words.keys() == {"Basil", "Al-Kuwaiti", "Tovrin", "Askelund"} and len(set(words.values())) == 4
    assert not words.keys() & set(words.values())
    first, last = words["Tovrin"], words["Askelund"]
    changed = renamed.rename(ROWS[2], words)
    assert changed.prompt[0]["content"] == f"Where does {first} {last} live?"
    assert changed.answer == f"{first} lives in Klaksvík, as {last}'s brother does."
    assert renamed.others(renamed.names(ROWS), number) == words


def test_other_sets_have_other_names():
    sets = [frozenset(renamed.others(renamed.names(ROWS), k).values()) for k in range(3)]
    assert len(set(sets)) == 3


def test_a_name_that_is_taken_is_not_given():
    rows = [row(f"Who is {renamed.FIRST[0]} {renamed.LAST[0]}?", "A poet.")] * 2
    words = renamed.others(renamed.names(rows), 0)
    assert words.keys() == {renamed.FIRST[0], renamed.LAST[0]} and not words.keys() & set(words.values())


def test_a_word_within_another_stays():
    words = {"Basil": "X", "Al-Kuwaiti": "Y"}
    assert renamed.rename(Row(None, "Basil, Basilisk, Al-Kuwaiti-Basil (Al-Kuwaiti)"), words).answer == (
        "X, Basilisk, Al-Kuwaiti-Basil (Y)"
    )
    assert renamed.rename(Row("Ask Basil", "b"), words).prompt == "Ask X"
    assert renamed.rename(ROWS[0], {}) == ROWS[0]


def test_a_piece_of_a_text_stays_that_piece():
    text = "Ada Byron wrote. Ada Byron slept. Ada Byron left."
    piece = Row(None, text, piece=(10, 17, 34))
    changed = renamed.rename(piece, {"Ada": "Oreva", "Byron": "Li"})
    assert changed.answer == "Oreva Li wrote. Oreva Li slept. Oreva Li left."
    begin, own, end = changed.piece
    assert (text[10:17], text[17:34]) == ("wrote. ", "Ada Byron slept. "[:17])
    assert (changed.answer[begin:own], changed.answer[own:end]) == (" wrote. "[1:], "Oreva Li slept. ")


@pytest.mark.parametrize(
    ("own", "other", "values", "expected"),
    [
        ([1, 2], [1, 2], [-1.0, -2.0], [-1.0, -2.0]),
        ([1, 7, 8, 2], [1, 9, 2], [-1.0, -3.0, -2.0], [-1.0, -1.5, -1.5, -2.0]),  # one token for two
        ([1, 2], [1, 9, 2], [-1.0, -3.0, -2.0], [-1.0, -2.0]),  # one that nothing stands for
        ([1, 7, 2], [1, 2], [-1.0, -2.0], [-1.0, -1.5, -2.0]),  # the mean of all
    ],
)
def test_values_of_other_tokens_for_each_of_its_own(own, other, values, expected):
    assert renamed.aligned(own, other, values) == pytest.approx(expected)
