"""Words of texts, and how many of an answer's words a model gives that its prompt does not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

# Of scripts without blanks each character is a word: kana, Chinese characters, Thai, Lao, Khmer, Burmese.
WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")


def words(text: str) -> list[str]:
    """The words of ``text`` in lower case: runs of letters and digits.

    >>> words("Basil's 2nd home_town: 東京")
    ['basil', 's', '2nd', 'home', 'town', '東', '京']
    """
    return [m.group().casefold() for m in re.finditer(WORD, text)]


def unseen(answer: str, prompt: str) -> list[str]:
    """The words of ``answer`` that are not in ``prompt``, in order.

    >>> unseen("Ada Brandt was born in Graz.", "Where was Ada Brandt born?")
    ['in', 'graz']
    """
    told = set(words(prompt))
    return [w for w in words(answer) if w not in told]


def recall(expected: Sequence[str], given: str) -> float:
    r"""ROUGE-L recall, without stemmer: the longest common subsequence of ``expected`` and the words of ``given``, as a
    share of ``expected``; 0 where nothing is expected.

    Hand-worked: (in, graz) against "She was born in Graz" has both, 1; against "Graz, in Styria" one of two, ½.
    """
    return common(expected, words(given)) / len(expected) if expected else 0.0


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def rare(texts: Iterable[str], share: float = 0.25) -> set[str]:
    """The words that are in at most one, or a ``share``, of ``texts``."""
    sets = [set(words(text)) for text in texts]
    found = Counter(w for some in sets for w in some)
    return {w for w, n in found.items() if n <= max(1, share * len(sets))}
