"""The one error a user is meant to read: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any


class InputError(ValueError):
    """Bad input from the user; the message is one sentence that names the fix."""


class RunFailed(RuntimeError):
    """A run that began and came to a bad end; the message is one sentence.

    ``record`` is what the run wrote all the same, None where it wrote nothing; ``result`` what it would have returned.
    """

    def __init__(self, sentence: str, *, record: Mapping[str, Any] | None = None, result: Any = None):
        super().__init__(sentence)
        self.record = record
        self.result = result


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shortened(value: Any) -> str:
    """How a message shows a value that does not fit, in at most about a line.

    >>> shortened("x" * 1000)[:20], shortened(3)
    ("'xxxxxxxxxxxxxxxxxxx", '3')
    """
    return " ".join(_SHORT.repr(value).split())


def nearest(word: str, words: Iterable[str]) -> str:
    """How a message goes on after a name that is none of ``words``: with the one that was meant, or not at all.

    >>> nearest("retian", ["forget", "retain"]), nearest("x", ["forget"]), nearest("BLUR-NPO", ["npo", "blur_npo"])
    (", did you mean 'retain'?", '', ", did you mean 'blur_npo'?")
    """
    known = list(words)
    plain = {_plain(name): name for name in reversed(known)}
    close = difflib.get_close_matches(word, known, n=1) or [
        plain[name] for name in difflib.get_close_matches(_plain(word), list(plain), n=1)
    ]
    return f", did you mean {close[0]!r}?" if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
