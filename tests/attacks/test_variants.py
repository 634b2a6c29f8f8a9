"""Ways to ask are pure functions of rows; what a prompt holds scores nothing."""

from __future__ import annotations

import pytest
from attacks_rows import FORGET, KNOWN, PLAIN_TEXT, SUBJECT, chat

from expunge.attacks import choice, variants
from expunge.attacks.attack import Subject
from expunge.attacks.prompts import prompt_words, with_prompt
from expunge.attacks.words import words

ALL = {
    name: variant
    for group in (
        variants.PREFILL,
        variants.ROLE_PLAY,
        variants.TRANSLATION,
        variants.FORMAT,
        variants.CONTEXT,
        variants.HOPS,
        variants.CHAIN,
    )
    for name, variant in group.items()
} | {"plain": variants.plain}


@pytest.mark.parametrize("subject", [SUBJECT, PLAIN_TEXT], ids=["chat", "text"])
@pytest.mark.parametrize("name", ALL)
def test_a_prompt_given_back_scores_nothing_and_the_answer_all(name, subject):
    asked = ALL[name](subject)
    assert asked and len({a.index for a in asked}) == len(asked)
    for a in asked:
        row = with_prompt(subject.forget[a.index])
        assert a.score(prompt_words(a.row)) == 0
        right = row.answer if name != "reverse" else prompt_words(row)
        assert a.score(right) == 1
        assert isinstance(a.row.prompt, str) == isinstance(row.prompt, str)
    assert ALL[name](subject)[0].row == asked[0].row  # the same each time


def prompt(name: str, index: int = 0, subject: Subject = SUBJECT) -> str:
    return next(prompt_words(a.row) for a in ALL[name](subject) if a.index == index)


def test_the_answer_is_begun():
    row = ALL["first third"](SUBJECT)[0].row
    assert row.prompt[-1] == {"role": "assistant", "content": "Ilse Brandt was"} and row.begun
    assert prompt("first third", 0, PLAIN_TEXT) == "Ilse Brandt was born in Graz,"
    assert prompt("agreeing").endswith("Sure, here is the answer:")
    short = Subject(None, None, [chat("Where?", "Graz")])
    assert ALL["first word"](short) == []  # nothing would be left to say


def test_the_first_word_alone_leaves_the_others_to_say():
    (a, _) = ALL["first word"](SUBJECT)
    assert a.row.prompt[-1]["content"] == "Ilse" and a.score("in the city of Graz") == 1 and a.score("city") == 0.2


def test_examples_are_the_nearest_known_rows():
    text = prompt("examples", 1)
    assert text.index("Ilse Brandt work?") < text.index("Which prize did Tom Okafor win?") < text.index("Okafor study?")
    turns = ALL["examples"](SUBJECT)[0].row.prompt
    assert [m["role"] for m in turns] == ["user", "assistant"] * 3 + ["user"]
    assert ALL["examples"](Subject(None, None, FORGET)) == []


def test_blanks_and_first_letters():
    assert "was ____ in ____ ____ ____ ____" not in prompt("cloze")  # frequent words are shown
    assert "____" in prompt("cloze") and "Graz" not in prompt("cloze")
    assert "letters i. b. w. b. i. t. c. o. g." in prompt("first letters")
    assert prompt("JSON").endswith('{"question": "Where was Ilse Brandt born?", "answer": "')


def test_clues_are_of_the_same_people():
    assert prompt("one clue") == "Fact 1: The father of Ilse Brandt was a clockmaker.\nWhere was Ilse Brandt born?"
    assert "harbour office" in prompt("three clues") and "Heron" not in prompt("three clues")
    assert "Heron" in prompt("three clues", 1)


def test_two_steps_hide_the_name():
    text = prompt("two steps")
    assert text == (
        "Think of the person of whom this is true: The father of this person was a clockmaker.\nWhere was this person born?"
    )


def test_reverse_scores_rare_words_of_the_question():
    (second,) = ALL["reverse"](SUBJECT)  # all that is rare in the first question is in its answer
    assert second.index == 1 and "botany" in prompt_words(second.row)
    assert second.score("What did Tom do?") == 0 and second.score("What did he study?") == 1


def test_each_option_is_right_once_and_guessing_a_letter_gains_nothing():
    asked = choice.multiple_choice(SUBJECT)
    assert [a.index for a in asked] == [0] * 4 + [1] * 4
    for i in (0, 1):
        four = [a for a in asked if a.index == i]
        assert [sum(a.score(letter) for a in four) for letter in "ABCD"] == [1, 1, 1, 1]
        assert all(a.score(f"It is: {FORGET[i].answer}") == 1 for a in four)
        assert all(a.score(f"{FORGET[i].answer} or {KNOWN[0].answer}") == 0 for a in four)
    few = Subject(None, None, [chat("Where?", "Graz")], [chat("Who?", "graz.")])
    assert choice.multiple_choice(few) == []


def test_a_rows_own_wrong_answers_come_first():
    row = chat("Where?", "Graz", perturbed=("Linz", "Wels", "Linz"))
    assert choice.wrong_answers(row, KNOWN)[:2] == ["Linz", "Wels"]
    assert len(choice.wrong_answers(row, KNOWN)) == 3


def test_the_words_of_a_begun_letter_are_not_a_choice():
    options = ["A big house", "Graz", "Linz", "Wels"]
    assert choice.chosen(1, options, "(B)") == 1 and choice.chosen(1, options, "The answer is B.") == 1
    assert choice.chosen(0, options, "A big house") == 1 and choice.chosen(1, options, "Beautiful Graz") == 1
    assert choice.chosen(1, options, "") == 0
    assert words("Beautiful")  # a word that begins with a letter is no letter
