"""Whether a text mentions a name or a word: case, Unicode form and typographic apostrophes do not matter."""

from __future__ import annotations

import unicodedata

SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts that write no space between words, by how the names of their characters begin."""


def normalised(text: str) -> str:
    """``text`` case-folded, in NFKC, with straight apostrophes and one space for every run of blanks.

    >>> normalised("O’BRIEN\\n  Straße")
    "o'brien strasse"
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.replace("\u2019", "'").split())


def mentions(text: str, name: str) -> bool:
    """Whether ``name`` occurs in ``text`` as a separate word; both :func:`normalised` already.

    A word ends before anything but a letter, a digit, an underscore or a combining mark, so "ann" is not in "hannah"
    nor in "ann_2", but in "ann's" and "ann-marie".  A name that ends in a script without spaces between words
    needs no boundary.

    >>> mentions("the anns met ann's aunt", "ann"), mentions("hannah", "ann")
    (True, False)
    """
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if _apart(text[start - 1 : start], name[0]) and _apart(text[end : end + 1], name[-1]):
            return True
        start = text.find(name, start + 1)
    return False


def _apart(neighbour: str, edge: str) -> bool:
    """Whether a word may end between ``edge`` and its ``neighbour`` ("" where the text ends)."""
    if not neighbour or not _in_word(neighbour) or not _in_word(edge):
        return True
    return unicodedata.name(edge, "").startswith(SPACELESS) and not unicodedata.category(neighbour).startswith("M")


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
