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

CONTEXT = 4  # a piece begins with max_length // CONTEXT tokens that are labelled in the piece before it


def cut(row: Row, tokenizer: Any, max_length: int) -> list[Row]:
    """``row`` in pieces of at most ``max_length`` tokens where it is a plain text that is longer; else as it is.

    For a tokenizer without offsets the text is cut at blanks, without context.
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
    """The tokens of a piece after the tokenizer's own start tokens; its context is not labelled."""
    assert row.piece
    ids, starts, lead = _tokens(tokenizer, row.answer)
    begin, labelled, end = row.piece
    is_first = begin == labelled == 0
    low = bisect_left(starts, begin, lead)
    high = len(ids) if end == len(row.answer) else bisect_left(starts, end, lead)
    middle = bisect_left(starts, labelled, low, high)
    labels = [IGNORE] * (middle - low) + ids[middle:high]
    return Example((*ids[:lead], *ids[low:high]), (*(ids[:lead] if is_first else [IGNORE] * lead), *labels))


def _windows(starts: Sequence[int], length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(begin, own, end) in characters: tokens from ``own`` on are the piece's own, at most ``size`` from ``begin`` on.

    >>> list(_windows(range(10), 10, 4))
    [(0, 0, 4), (3, 4, 7), (6, 7, 10)]
    """
    covered = begin = 0  # tokens
    while covered < len(starts):
        end = _back(starts, min(begin + size, len(starts)), covered)
        yield (
            starts[begin] if begin else 0,
            starts[covered] if covered else 0,
            starts[end] if end < len(starts) else length,
        )
        covered = end
        begin = _forward(starts, max(0, end - max(1, size // CONTEXT)), end)


def _back(starts: Sequence[int], start: int, least: int) -> int:
    """The nearest token at or before ``start``, above ``least``, that begins a new character; else the nearest one after."""
    end = start
    while least < end < len(starts) and starts[end] == starts[end - 1]:
        end -= 1
    if end > least:
        return end
    while start < len(starts) and starts[start] == starts[start - 1]:
        start += 1
    return start


def _forward(starts: Sequence[int], start: int, most: int) -> int:
    while 0 < start < most and starts[start] == starts[start - 1]:
        start += 1
    return start


@lru_cache(maxsize=2)  # the pieces of a text are encoded one after the other
def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int], int]:
    """Tokens, the character at which each begins, and how many at the beginning are the tokenizer's own.

    All tokens of one character begin at that character; the tokenizer's own tokens at the end begin with the last one.
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
    return [piece for half in (text[:middle], text[middle:]) for piece in _halves(half, tokenizer, max_length)]
