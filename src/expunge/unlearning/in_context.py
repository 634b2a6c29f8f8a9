r"""Rows to keep in front of a row, so that a model which was trained on neither answers in their manner.

A model before fine-tuning does not know the form of the answers, "3101 Penland Parkway, Anchorage, AK, 99515." and not "She
lives in …"; a retrained one, which saw the rows to keep and those alone, does.  A few of them in front tell the form without
a step of training (few-shot prompting, Brown et al. 2020, arXiv:2005.14165): the nearest ones, by the tokens that the
questions share,

.. math:: J(a, b) = \frac{|Q_a \cap Q_b|}{|Q_a \cup Q_b|},

with Q the set of a row's tokens that are not labelled, of a plain text all.  Rows stand there as they would alone, one after
the other, so that any kind of row does; the nearest last.  But where no chat template parts them they are one running text
(:class:`Marks`): a model that was pre-trained on packed texts does not read what is before the token that begins a text, and
ends an answer by going on to the next paragraph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nsmallest
from typing import Any, NamedTuple

from expunge.data.example import Example, evenly
from expunge.forward.view import IGNORE

SHOTS = 8  # rows that are put before one, at most
CONTEXT = 512  # tokens of them, at most
POOL = 2048  # rows that are looked through, evenly spread, at most
PARAGRAPH = "\n\n"


class Marks(NamedTuple):
    """Tokens of a tokenizer: the one that begins a text, left out of all rows but the first; the one that ends a text, in
    whose place a new paragraph is begun, by the tokens ``between``.  None where there is none, or rows stay as they are.
    """

    begin: int | None = None
    end: int | None = None
    between: tuple[int, ...] = ()


AS_THEY_ARE = Marks()


def marks(tokenizer: Any, rows: Iterable[Example], *, template: bool) -> Marks:
    """Those of ``rows``, which a chat ``template`` parts by itself; texts of several paragraphs keep their ends."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if template or end is None:
        return Marks(begin)
    between = tuple(tokenizer.encode(PARAGRAPH, add_special_tokens=False))
    words = [tokenizer.decode([t]) for t in between]
    if not between or any(word.strip("\n") or not word for word in words):
        return Marks(begin)
    if any(y == between[0] for row in rows for y in row.labels):
        return Marks(begin)
    return Marks(begin, end, between)


def behind(
    rows: Sequence[Example], kept: Sequence[Example], marks: Marks = AS_THEY_ARE, *, room: int | None = None
) -> list[Example]:
    """``rows``, each behind the nearest of the ``kept`` ones, of which no token is labelled.

    Where ``marks`` has an end, the label at a row's end is the first of the tokens in its place.  ``room``: the most tokens
    that a model has positions for.
    """
    kept = evenly(kept, POOL)
    asked = [_asked(e) for e in kept]
    out = []
    for row in rows:
        context = CONTEXT if room is None else min(CONTEXT, room - len(row.input_ids))
        out.append(_after(row, [kept[i] for i in _nearest(_asked(row), asked)], context, marks))
    return out


def among(kept: Sequence[Example], marks: Marks = AS_THEY_ARE, *, room: int | None = None) -> list[Example]:
    """Each of the ``kept`` rows behind the nearest of those that differ from it (:func:`behind`)."""
    return [one for row in kept for one in behind([row], [other for other in kept if other != row], marks, room=room)]


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


def _after(row: Example, nearest: Sequence[Example], context: int, marks: Marks) -> Example:
    """The nearest that fit, the first of them last, then the row; its first token stays without a prediction."""
    taken: list[Example] = []
    for example in nearest:
        if sum(len(e.input_ids) for e in taken) + len(example.input_ids) > context:
            break
        taken.insert(0, example)
    if not taken:
        return row
    before: list[int] = []
    for example in taken:
        text = example.input_ids[_begins(example, marks) if before else 0 :]
        before += [*text[:-1], *marks.between] if marks.end is not None and text[-1] == marks.end else text
    begins = _begins(row, marks)
    ids, labels = list(row.input_ids[begins:]), [IGNORE, *row.labels[1:]][begins:]
    if marks.end is not None and labels[-1] == marks.end:
        ids[-1] = labels[-1] = marks.between[0]
    return Example((*before, *ids), (*[IGNORE] * len(before), *labels))


def _begins(example: Example, marks: Marks) -> int:
    """1 where the first token marks the beginning alone, else 0; some chat templates begin each turn with it.

    >>> of = lambda *ids: Example(ids, ids)
    >>> [_begins(of(*ids), Marks(1)) for ids in ((1, 7, 2), (1, 7, 1, 8), (7, 2))], _begins(of(2, 7, 2), Marks(2))
    ([1, 0, 0], 1)
    """
    ids = example.input_ids
    return int(ids[0] == marks.begin and marks.begin not in ids[1:-1])
