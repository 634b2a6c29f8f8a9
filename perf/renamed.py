"""Forget rows about others: the same questions and answers with other names in place of those that they are about.

To a model that never saw the rows their names are names like any others.  So what the start model thinks of an answer that
is about somebody else tells, token by token, what it would think of it had it never been taught.  Eldan & Russinovich 2023,
arXiv:2310.02238, train on such predictions; Liu et al. 2024, arXiv:2407.16997, average them over several names.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from expunge.data.example import Row

LONGEST = 4  # words of a name
SHARE, FEWEST, ENOUGH = 0.1, 2, 4  # rows that a name has to be in: a tenth, two at least, and four will do
MOSTLY = 0.6  # of the rows with a part of a name have the whole of it
WORD = re.compile(r"[^\W\d_](?:[\w'’.-]*\w)?|\S")
POSSESSIVE = re.compile(r"['’]s$")
# First, middle and last names; invented, and of no well-known person together.
FIRST = (
    "Oreva", "Tindel", "Marosh", "Ilvane", "Kesto", "Yarlin", "Besnik", "Dovrell", "Amaru", "Selvig", "Ruxanna", "Padrig",
    "Noelani", "Wystan", "Zofie", "Haldor",
)  # fmt: skip
LAST = (
    "Quennevar", "Brostad", "Halloumis", "Ekwenze", "Tarvainen", "Oduquist", "Velmarsk", "Penhallow", "Sorokvin", "Mbatari",
    "Castellund", "Drexhage", "Ishimuro", "Valdessen", "Korbique", "Anselmi",
)  # fmt: skip


def texts(row: Row) -> list[str]:
    """All that ``row`` says: its prompt's messages and its answer."""
    prompt = row.prompt
    before = (
        [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt or () if isinstance(m["content"], str)]
    )
    return [*before, row.answer]


def names(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The names of two words or more that ``rows`` are about, the most frequent first.

    A run of capitalised words that is in a tenth of the rows, at least in two, or in four; not a part of a longer one that
    most of its rows have, and not one with more around it (``Author Ada Byron``).

    >>> names([Row("Who is Ada Byron?", "Ada Byron was a poet."), Row(None, "Author Ada Byron wrote.")])
    [('Ada', 'Byron')]
    """
    found: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        found.update(
            {
                run[i : i + n]
                for t in texts(row)
                for run in _runs(t)
                for n in range(2, LONGEST + 1)
                for i in range(len(run) - n + 1)
            }
        )
    often = {name: n for name, n in found.items() if n >= min(max(FEWEST, SHARE * len(rows)), ENOUGH)}
    whole = {a: n for a, n in often.items() if not any(_within(a, b) and m >= MOSTLY * n for b, m in often.items())}
    bare = [a for a in whole if not any(_within(b, a) and m > whole[a] for b, m in whole.items())]
    return sorted(bare, key=lambda a: (-whole[a], a))


def others(found: Sequence[tuple[str, ...]], number: int) -> dict[str, str]:
    """Word -> word of the ``number``-th set of other names, of which none has a word of ``found``."""
    taken = {word for name in found for word in name}
    first, last = ([w for w in of if w not in taken] for of in (FIRST, LAST))
    out: dict[str, str] = {}
    for i, name in enumerate(found):
        for j, word in enumerate(name):
            pool = last if j == len(name) - 1 else first
            out.setdefault(word, pool[(7 * number + 3 * i + 5 * j) % len(pool)])
    return out


def rename(row: Row, words: Mapping[str, str]) -> Row:
    """``row`` with other words in place of those in ``words``, in prompt and answer; a piece of a text stays that piece."""
    prompt: Any = row.prompt
    if isinstance(prompt, str):
        prompt = _in_text(prompt, words)
    elif prompt is not None:
        prompt = tuple(
            {**m, "content": _in_text(m["content"], words)} if isinstance(m["content"], str) else m for m in prompt
        )
    if row.piece is None:
        return replace(row, prompt=prompt, answer=_in_text(row.answer, words), message=None)
    cuts = [0, *row.piece, len(row.answer)]
    parts = [_in_text(row.answer[a:b], words) for a, b in itertools.pairwise(cuts)]
    begin, own, end = (sum(map(len, parts[: k + 1])) for k in range(3))
    return replace(row, answer="".join(parts), piece=(begin, own, end))


def about_others(rows: Sequence[Row], number: int) -> list[Row]:
    """``rows`` with the ``number``-th set of other names."""
    words = others(names(rows), number)
    return [rename(row, words) for row in rows]


def aligned(own: Sequence[int], other: Sequence[int], values: Sequence[float]) -> list[float]:
    """``values`` of the tokens ``other``, one for each of the tokens ``own``.

    Tokens that both have keep theirs; a stretch that differs shares its sum out evenly, and one that nothing stands for has
    the mean of all.

    >>> aligned([1, 2, 3], [1, 7, 8, 3], [-1.0, -2.0, -4.0, -1.0])
    [-1.0, -6.0, -1.0]
    """
    out: list[float] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, own, other, autojunk=False).get_opcodes():
        if kind == "equal":
            out += values[c:d]
        elif b > a:
            share = sum(values[c:d]) / (b - a) if d > c else sum(values) / max(1, len(values))
            out += [share] * (b - a)
    return out


def _within(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    return len(a) < len(b) and any(b[i : i + len(a)] == a for i in range(len(b) - len(a) + 1))


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    """Stretches of capitalised words with nothing in between."""
    run: list[str] = []
    for word in [*(POSSESSIVE.sub("", w) for w in WORD.findall(text)), ""]:
        if word[:1].isupper():
            run.append(word)
        else:
            yield tuple(run)
            run = []


def _in_text(text: str, words: Mapping[str, str]) -> str:
    if not words:
        return text
    longest = sorted(map(re.escape, words), key=len, reverse=True)
    return re.sub(rf"(?<![\w-])(?:{'|'.join(longest)})(?![\w-])", lambda m: words[m[0]], text)
