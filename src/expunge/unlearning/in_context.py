r"""Rows to keep in front of a row, so that a model which was trained on neither answers in their manner.

A model before fine-tuning does not know the form of the answers, "3101 Penland Parkway, Anchorage, AK, 99515." and not "She
lives in …"; a retrained one, which saw the rows to keep and those alone, does.  A few of them in front tell the form without
a step of training (few-shot prompting, Brown et al. 2020, arXiv:2005.14165): the nearest ones, by the tokens that the
questions share,

.. math:: J(a, b) = \frac{|Q_a \cap Q_b|}{|Q_a \cup Q_b|},

with Q the set of a row's tokens that are not labelled, of a plain text all.  Rows stand there as they would alone, one after
the other, so that any kind of row does; the nearest last.  The token that begins a text stands at the beginning alone: a
model that was pre-trained on packed texts does not read what is before one.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

from expunge.data.example import Example, evenly
from expunge.forward.view import IGNORE

SHOTS = 8  # rows that are put before one, at most
CONTEXT = 512  # tokens of them, at most
POOL = 2048  # rows that are looked through, evenly spaced, at most


def behind(
    rows: Sequence[Example], kept: Sequence[Example], *, bos: int | None = None, room: int | None = None
) -> list[Example]:
    """``rows``, each behind the nearest of the ``kept`` ones, of which no token is labelled.

    ``bos``: the token that begins a text, of a tokenizer that has one; ``room``: the most tokens that a model has positions
    for.
    """
    kept = evenly(kept, POOL)
    asked = [_asked(e) for e in kept]
    out = []
    for row in rows:
        context = CONTEXT if room is None else min(CONTEXT, room - len(row.input_ids))
        out.append(_after(row, [kept[i] for i in _nearest(_asked(row), asked)], context, bos))
    return out


def _nearest(own: frozenset[int], asked: Sequence[frozenset[int]]) -> list[int]:
    """The numbers of the :data:`SHOTS` nearest, the nearest first; of equals the first."""
    return nsmallest(SHOTS, range(len(asked)), key=lambda i: (-overlap(own, asked[i]), i))


def overlap(a: frozenset[int], b: frozenset[int]) -> float:
    """J of the module; 0 of two empty sets.

    >>> overlap(frozenset([1, 2, 3]), frozenset([2, 3, 4]))
    0.5
    """
    return len(a & b) / max(1, len(a | b))


def _asked(example: Example) -> frozenset[int]:
    found = frozenset(t for t, y in zip(example.input_ids, example.labels, strict=True) if y == IGNORE)
    return found or frozenset(example.input_ids)


def _after(row: Example, nearest: Sequence[Example], context: int, bos: int | None) -> Example:
    """The nearest that fit, the first of them last, then the row; its first token stays without a prediction."""
    taken: list[Example] = []
    for example in nearest:
        if sum(len(e.input_ids) for e in taken) + len(example.input_ids) > context:
            break
        taken.insert(0, example)
    if not taken:
        return row
    before = [*taken[0].input_ids, *(t for example in taken[1:] for t in example.input_ids[_marked(example, bos) :])]
    begins = _marked(row, bos)
    labels = [IGNORE] * len(before) + [IGNORE, *row.labels[1:]][begins:]
    return Example((*before, *row.input_ids[begins:]), tuple(labels))


def _marked(example: Example, bos: int | None) -> int:
    """1 where the first token is ``bos`` and marks the beginning alone, else 0; some chat templates begin each turn with it.

    >>> of = lambda *ids: Example(ids, ids)
    >>> _marked(of(1, 7, 2), 1), _marked(of(1, 7, 1, 8), 1), _marked(of(2, 7, 2), 2), _marked(of(7, 2), None)
    (1, 0, 1, 0)
    """
    ids = example.input_ids
    return int(ids[0] == bos and bos not in ids[1:-1])
