"""A long text cut into pieces: every token is labelled in exactly one of them, most after some context from before.

The cuts are characters where a token begins, so the pieces' tokens are those of the whole text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from expunge.data.example import Example, Row
from expunge.forward.view import IGNORE

CONTEXT = 4  # a piece begins with max_length // CONTEXT tokens that the piece before it has labelled


def cut(row: Row, tokenizer: Any, max_length: int) -> list[Row]:
    """``row`` in pieces of at most ``max_length`` tokens where it is a plain text that is longer; else as it is.

    A tokenizer that does not say where its tokens stand gets parts of the text, cut at blanks and without context.
    """
    if row.prompt is not None or row.piece or max_length < 2:
        return [row]
    if not getattr(tokenizer, "is_fast", False):
        return [replace(row, answer=text) for text in _halves(row.answer, tokenizer, max_length)]
    ids, starts, lead = _tokens(tokenizer, row.answer)
    if len(ids) <= max_length:
        return [row]
    bare = replace(row, paraphrase=None, perturbed=())  # of the whole text
    return [replace(bare, piece=piece) for piece in _windows(starts[lead:], len(row.answer), max_length - lead)]


def encode(row: Row, tokenizer: Any) -> Example:
    """The tokens of a piece after those that begin every text, its context not labelled."""
    assert row.piece
    ids, starts, lead = _tokens(tokenizer, row.answer)
    begin, own, end = row.piece
    first = begin == own == 0
    low = bisect_left(starts, begin, lead)
    high = len(ids) if end == len(row.answer) else bisect_left(starts, end, lead)
    middle = bisect_left(starts, own, low, high)
    labels = [IGNORE] * (middle - low) + ids[middle:high]
    return Example((*ids[:lead], *ids[low:high]), (*(ids[:lead] if first else [IGNORE] * lead), *labels))


def _windows(starts: Sequence[int], length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(begin, own, end) in characters: tokens from ``own`` on are the piece's own, at most ``size`` from ``begin`` on.

    >>> list(_windows(range(10), 10, 4))
    [(0, 0, 4), (3, 4, 7), (6, 7, 10)]
    """
    done = begin = 0  # tokens
    while done < len(starts):
        end = _back(starts, min(begin + size, len(starts)), done)
        yield starts[begin] if begin else 0, starts[done] if done else 0, starts[end] if end < len(starts) else length
        done = end
        begin = _forward(starts, max(0, end - max(1, size // CONTEXT)), end)


def _back(starts: Sequence[int], at: int, least: int) -> int:
    """The nearest token from ``at`` downwards that begins a character of its own; upwards where that gets nowhere."""
    end = at
    while least < end < len(starts) and starts[end] == starts[end - 1]:
        end -= 1
    if end > least:
        return end
    while at < len(starts) and starts[at] == starts[at - 1]:
        at += 1
    return at


def _forward(starts: Sequence[int], at: int, most: int) -> int:
    while 0 < at < most and starts[at] == starts[at - 1]:
        at += 1
    return at


@lru_cache(maxsize=2)  # the pieces of a text come one after the other
def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int], int]:
    """Tokens, the character at which each begins, and how many at the beginning are the tokenizer's own.

    A character of several tokens is where all of them begin; the tokenizer's own at the end belong to the last.
    """
    coded = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True, return_special_tokens_mask=True)
    mask = coded.special_tokens_mask
    lead = next((i for i, special in enumerate(mask) if not special), 0)
    tail = next((i for i, special in enumerate(reversed(mask)) if not special), 0)
    starts: list[int] = []
    reached = 0
    for i, (start, end) in enumerate(coded.offset_mapping):
        if i < lead:
            starts.append(0)
        elif i >= len(mask) - tail:
            starts.append(starts[-1] if starts else 0)
        else:
            starts.append(max(starts[-1] if starts else 0, min(start, reached)))
            reached = max(reached, end)
    return list(coded.input_ids), starts, lead


def _halves(text: str, tokenizer: Any, max_length: int) -> list[str]:
    """``text`` halved at a blank, and again, until each part has at most ``max_length`` tokens."""
    if len(tokenizer(text, add_special_tokens=True).input_ids) <= max_length or len(text) < 2:
        return [text]
    middle = max(text.rfind(" ", 1, len(text) // 2 + 1), 0) or len(text) // 2
    return [part for half in (text[:middle], text[middle:]) for part in _halves(half, tokenizer, max_length)]
