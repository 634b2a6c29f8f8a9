"""Entities as an instruction asks for them: ``PER: John Smith; LOC: Paris``, one a line just as well, or ``none``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from expunge.errors import InputError

TYPES = ("PER", "LOC", "ORG", "MISC")  # CoNLL-2003's
LONGEST = 10  # words of a mention that :func:`valid` takes for a name; a longer one is a sentence
NONE = "none"

_BREAK = re.compile(rf"[;\n]|[,\s](?=\s*(?:{'|'.join(TYPES)})\s*:)")
_ENTITY = re.compile(rf"(?:[-*•]|\d+[.)])?\s*({'|'.join(TYPES)})\s*:\s*(.+)", re.IGNORECASE)


def parse(text: str) -> list[tuple[str, str]]:
    """The entities of a response, (type, mention), in its order, duplicates kept.

    Tolerant: blanks, bullets, a type in small letters, a comma or nothing in place of the semicolon, a full stop at the
    end.  What has no type, an unknown one, or no mention (or ``none`` for one) is dropped.  A mention loses its last full
    stop whatever it means: compare it with the mentions of a *parsed* expected answer.

    >>> parse("PER: John Smith; LOC: U.S.; FRUIT: apple. ")
    [('PER', 'John Smith'), ('LOC', 'U.S')]
    >>> parse("none")
    []
    """
    out = []
    for piece in _BREAK.split(text):
        found = _ENTITY.fullmatch(piece.strip())
        if not found:
            continue
        mention = " ".join(found[2].removesuffix(".").split())
        if mention and mention.casefold() != NONE:
            out.append((found[1].upper(), mention))
    return out


def write(entities: Iterable[tuple[str, str]]) -> str:
    """The response that says ``entities``, and that :func:`parse` reads back (but for a last full stop).

    Raises InputError for an unknown type and for a mention that the format cannot hold.

    >>> write([("PER", "John Smith"), ("LOC", "Paris")]), write([])
    ('PER: John Smith; LOC: Paris', 'none')
    """
    pieces = []
    for kind, mention in entities:
        if kind not in TYPES:
            raise InputError(f"there is no entity type {kind!r}; there are {', '.join(TYPES)}")
        piece = f"{kind}: {mention}"
        if parse(piece) != [(kind, " ".join(mention.removesuffix(".").split()))]:
            raise InputError(
                f"a mention of type {kind} is empty, 'none', or holds a separator (;), so it cannot be written"
            )
        pieces.append(piece)
    return "; ".join(pieces) or NONE


def valid(text: str, kind: str) -> bool:
    """Whether ``text`` holds an entity of type ``kind`` that could be one: with a letter, of at most ten words.

    >>> valid("PER: Ada Lovelace", "PER"), valid("PER: ???", "PER"), valid("LOC: Paris", "PER")
    (True, False, False)
    """
    if kind not in TYPES:
        raise InputError(f"there is no entity type {kind!r}; there are {', '.join(TYPES)}")
    return any(t == kind and any(map(str.isalpha, m)) and len(m.split()) <= LONGEST for t, m in parse(text))
