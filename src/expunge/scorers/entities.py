r"""Named entities as text: tags to entities, entities to an answer and back, and their agreement.

An *entity* is a pair (type, mention), such as ``("PER", "Ada Lovelace")``; a sentence has a multiset of them.  Without
torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.errors import InputError

Array = NDArray[np.float64]
Entity = tuple[str, str]
TYPES = ("PER", "LOC", "ORG", "MISC")  # CoNLL-2003's
BEGIN, INSIDE = ("B", "U", "S"), ("I", "L", "E")  # of BIO, BILOU and BIOES
NONE = "none"
LONGEST = 10  # words of a mention that :func:`valid` takes for a name; a longer one is a sentence
ITEM = re.compile(r"(?:[-*•]\s+|\d+[.)]\s+)?([A-Za-z][A-Za-z-]*)\s*:\s*(\S.*)")
BETWEEN = re.compile(r"\n|;\s+(?=[A-Za-z][A-Za-z-]*\s*:)|;\s*$")  # a mention may hold a semicolon, as "M&amp;M" does


def entities(tokens: Sequence[str], tags: Sequence[str]) -> list[Entity]:
    """The entities of a tagged sentence in order, a mention's words joined by blanks.

    One begins at a ``B-`` tag, and at an ``I-`` tag after another type or after ``O``; so IO and BIO are both read, and
    in IO neighbours of one type are one entity.  ``U-`` and ``S-`` are ``B-``, ``L-`` and ``E-`` are ``I-`` (BILOU, BIOES).

    Hand-worked: ``Ada/I-PER Lovelace/I-PER in/O Rome/B-LOC Oslo/B-LOC`` has Ada Lovelace, Rome and Oslo.

    Raises InputError for a tag that is not ``O``, ``B-…`` or ``I-…``, and for different numbers of tags and tokens.
    """
    if len(tokens) != len(tags):
        raise InputError(f"{len(tokens)} tokens have {len(tags)} tags; each token has one")
    spans: list[tuple[str, list[str]]] = []
    current = ""
    for token, tag in zip(tokens, tags, strict=True):
        begins, _, kind = tag.partition("-")
        if tag == "O":
            current = ""
            continue
        if begins not in (*BEGIN, *INSIDE) or not kind:
            raise InputError(f"the tag {tag!r} is none of O, B-TYPE and I-TYPE")
        if begins in BEGIN or kind != current:
            spans.append((kind, []))
        spans[-1][1].append(token)
        current = kind
    return [(kind, " ".join(words)) for kind, words in spans]


def answer(items: Iterable[Entity]) -> str:
    """Entities as an answer: ``PER: Ada Lovelace; LOC: Rome``, or ``none``."""
    return "; ".join(f"{kind}: {mention}" for kind, mention in items) or NONE


def read(text: str, types: Sequence[str]) -> Counter[Entity]:
    """The entities in an answer, of ``types`` only; empty if it has none, or in another form.

    Items are separated by semicolons or on lines of their own, also with a bullet or a number; a type may be in any case.
    A mention is unchanged except for blanks and a full stop at its end; so parse the reference answer with it too.

    Hand-worked: ``per: Ada; LOC: Rome; DATE: 1840.`` holds (PER, Ada) and (LOC, Rome).
    """
    items = [m for part in BETWEEN.split(text) if (m := ITEM.fullmatch(part.strip()))]
    pairs = ((m[1].upper(), " ".join(m[2].removesuffix(".").split())) for m in items)
    return Counter(e for e in pairs if e[0] in types and e[1])


def well_formed(text: str, types: Sequence[str]) -> bool:
    """Whether an answer is ``none``, or nothing but items of ``types``: a model that lost the form, and not only the
    names, has this below 1.
    """
    parts = [part.strip() for part in BETWEEN.split(text)]
    if text.strip().lower().rstrip(".") == NONE:
        return True
    matches = [ITEM.fullmatch(part) for part in parts if part]
    return bool(matches) and all(m is not None and m[1].upper() in types for m in matches)


def valid(text: str, kind: str) -> bool:
    """Whether ``text`` names an entity of type ``kind`` that could be one: with a letter, of at most ten words.

    >>> valid("PER: Ada Lovelace", "PER"), valid("PER: ???", "PER"), valid("LOC: Paris", "PER")
    (True, False, False)
    """
    if kind not in TYPES:
        raise InputError(f"there is no entity type {kind!r}; there are {', '.join(TYPES)}")
    return any(any(map(str.isalpha, m)) and len(m.split()) <= LONGEST for _, m in read(text, (kind,)))


def counts(expected: Sequence[Counter[Entity]], predicted: Sequence[Counter[Entity]], types: Sequence[str]) -> Array:
    r"""(n, 3) of n sentences: true positives, predicted and expected entities of ``types``.

    .. math:: \mathrm{tp}_i = \sum_{e} \min(\text{expected}_i(e), \text{predicted}_i(e))

    An entity counts where type and mention are exactly those of the text, as often as it occurs.  Summed over
    sentences, precision is tp / predicted, recall tp / expected and F1 2 tp / (predicted + expected): CoNLL's, by mention
    instead of by position, so an entity that occurs twice and is predicted once has recall 1/2.

    Hand-worked: expected {Ada, Ada, Bo}, predicted {Ada, Cy}: (1, 2, 3), so precision 1/2, recall 1/3 and F1 2/5.

    Tjong Kim Sang and De Meulder 2003, W03-0419.
    """
    if len(expected) != len(predicted):
        raise InputError(f"there are {len(expected)} right answers and {len(predicted)} given ones")
    rows = []
    for expected_entities, predicted_entities in zip(expected, predicted, strict=True):
        expected_counts = Counter({e: k for e, k in expected_entities.items() if e[0] in types})
        predicted_counts = Counter({e: k for e, k in predicted_entities.items() if e[0] in types})
        rows.append([(expected_counts & predicted_counts).total(), predicted_counts.total(), expected_counts.total()])
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
