"""Files without named fields, as some benchmarks have: CoNLL columns, lines of text; and gzipped JSON lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from expunge.errors import InputError

Placed = tuple[str, dict[str, Any]]  # (place to name, fields)
CONLL = (".conll", ".conll.txt")
LINES = (".txt",)
GZIPPED = (".jsonl.gz",)
DOCUMENT = "-DOCSTART-"


def reader(source: Any) -> Callable[[Path], Iterator[Placed]] | None:
    """The reader for the file ``source``; None if it is not a file, or of another kind."""
    if not isinstance(source, str | Path) or not Path(source).is_file():
        return None
    readers = ((CONLL, conll), (LINES, lines), (GZIPPED, gzipped))
    return next((function for endings, function in readers if str(source).lower().endswith(endings)), None)


def conll(path: Path) -> Iterator[Placed]:
    """Sentences with the fields ``tokens``, ``tags`` (first and last column of their lines) and ``document``.

    A sentence ends at an empty line.  ``document`` counts the lines ``-DOCSTART-`` so far, which are no sentences.

    Raises InputError for a line of a single column.
    """
    tokens: list[str] = []
    tags: list[str] = []
    begin = document = 0
    for number, line in enumerate([*_text(path), ""], 1):
        columns = line.split("\t") if "\t" in line else line.split()
        if columns and columns[0].strip() == DOCUMENT:
            document += 1
        elif line.strip():
            if len(columns) < 2:
                raise InputError(f"{path.name}, line {number}: a CoNLL line has a token and a tag, this is one column")
            begin = begin if tokens else number
            tokens.append(columns[0].strip())
            tags.append(columns[-1].strip())
        elif tokens:
            yield f"{path.name}, line {begin}", {"tokens": tokens, "tags": tags, "document": document}
            tokens, tags = [], []


def lines(path: Path) -> Iterator[Placed]:
    """Each line that is not empty as the field ``text``, without blanks around it."""
    for number, line in enumerate(_text(path), 1):
        if line.strip():
            yield f"{path.name}, line {number}", {"text": line.strip()}


def gzipped(path: Path) -> Iterator[Placed]:
    """Each line of gzipped JSONL as its fields; InputError for a file that is not gzipped, or a line that is not JSON."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        raise InputError(f"{path.name} is not gzipped UTF-8 text") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield f"{path.name}, line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path.name}, line {number}: not JSON ({error.msg})") from None


def _text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
