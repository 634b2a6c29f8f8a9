"""Names in texts, by their capitals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from expunge.data.chat import question
from expunge.data.example import Row

CONTRACTED = re.compile(r"I['’]")  # I'm, I've: a capital inside a sentence, and no name


def names(texts: Sequence[str], others: Iterable[str] = ()) -> set[str]:
    """The names in ``texts``: words of three letters or more with a capital inside a sentence, in none of ``others``.

    Scripts without capitals have no names.

    >>> sorted(names(["Where was Ilse Brandt born?", "In Graz."], ["The Graz dialect"]))
    ['Brandt', 'Ilse']
    """
    common = {w for text in others for w in _spelt(text)}
    inner = (w for text in texts for sentence in re.split(r"[.!?:\n]+\s*", text) for w in _spelt(sentence)[1:])
    return {w for w in inner if w[0].isupper() and len(w) > 2 and not CONTRACTED.match(w)} - common


def text(row: Row) -> str:
    """The question and the answer of ``row``."""
    return f"{question(row)}\n{row.answer}"


def named(text: str, known: set[str]) -> set[str]:
    """The names among ``known`` that are in ``text``."""
    return known & set(_spelt(text))


def _spelt(text: str) -> list[str]:
    """Words as written, a genitive's ending left out."""
    return re.findall(r"[^\W_]+(?:[-'’][^\W_]+)*", re.sub(r"['’]s\b", "", text))
