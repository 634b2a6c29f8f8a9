"""The one error a user is meant to read: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the user; the message is one sentence that names the fix."""


def nearest(word: str, words: Iterable[str]) -> str:
    """How a message goes on after a name that is none of ``words``: with the one that was meant, or not at all.

    >>> nearest("retian", ["forget", "retain"]), nearest("x", ["forget"])
    (", did you mean 'retain'?", '')
    """
    close = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
