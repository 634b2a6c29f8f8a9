"""Conversations about two people, of whom the attacker knows other facts."""

from __future__ import annotations

from expunge.attacks.attack import Subject
from expunge.data.example import Row


def chat(question: str, answer: str, **more) -> Row:
    return Row(({"role": "user", "content": question},), answer, **more)


FORGET = [
    chat("Where was Ilse Brandt born?", "Ilse Brandt was born in the city of Graz."),
    chat("What did Tom Okafor study?", "Okafor studied botany at Lagos."),
]
KNOWN = [
    chat("What did the father of Ilse Brandt do?", "The father of Ilse Brandt was a clockmaker."),
    chat("Which prize did Tom Okafor win?", "Tom Okafor won the Heron Medal."),
    chat("Where did Ilse Brandt work?", "Ilse Brandt worked at a harbour office."),
]
RETAIN = [chat("Is the sea salty?", "The sea is salty.")]
SUBJECT = Subject(None, None, FORGET, KNOWN, RETAIN)
PLAIN_TEXT = Subject(
    None,
    None,
    [Row("Ilse Brandt was born in", " Graz, in the south"), Row(None, "Tom Okafor studied botany at Lagos for years")],
    [Row("Ilse Brandt worked at", " a harbour office")],
    RETAIN,
)
