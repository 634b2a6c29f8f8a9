r"""Whether what a model writes is still language: perplexity, repetition, real words, and one figure of the three.

A model that was made to forget too hard answers in made-up words ("opoldthorloğafurer was born on ickertoone day") or goes
round in circles, which betrays what it was made to forget as much as it is of no use.  Each function gives one value a
text.  Without torch; bad input is an :class:`~expunge.errors.InputError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError
from expunge.evaluation.metrics.repetition import repetition

Array = NDArray[np.float64]
GUESS = 50_000  # the perplexity of a guess among the tokens of an ordinary vocabulary
GRAM = 3  # words of an n-gram whose repetition counts
NAME = 0.5  # what an unknown word counts that begins like a name
WORD = re.compile(r"\w+(?:['’.\-]\w+)*")
CIRCLE = re.compile(r"(.{1,3}?)\1{6,}")  # within a word: 1000000000, hahahahahahaha
ALONE = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # of scripts without blanks between words


def words(text: str) -> list[str]:
    """The words of ``text``, without punctuation; of a script without blanks between words each character is one.

    >>> words("Al-Kuwaiti wrote 2 books, didn't he?")
    ['Al-Kuwaiti', 'wrote', '2', 'books', "didn't", 'he']
    """
    return WORD.findall(ALONE.sub(r" \g<0> ", text))


def vocabulary(texts: Iterable[str]) -> set[str]:
    """The words of ``texts`` and the parts of those with a hyphen or an apostrophe, without case."""
    found = {word.casefold() for text in texts for word in words(text)}
    return found.union(*(_parts(word) for word in found))


def real_words(texts: Sequence[str], known: Callable[[str], bool]) -> Array:
    r"""Share of each text's words that are words of a language, as far as ``known`` knows them.

    .. math:: \frac{|\text{known}| + \tfrac12\,|\text{unknown, with a capital letter}|}{|\text{words}|}

    From (texts,) to (texts,); 0 for a text without a word.  ``known(word)`` is asked for the word in lower case, and for
    each part of one with a hyphen or an apostrophe; numbers are known.  An invented name is language too, so what may be one
    counts half; one that goes round in circles, up to three characters seven times in a row, counts nothing ("10000000000",
    "hahahahahahaha").  In records the known words are those of the rows to forget and to keep, and those that are one token
    of the model's tokenizer, which are the frequent ones of what it was made from.  In languages that build long words the
    share is lower; compare it with that of the model before.

    Hand-worked: of "Ravik was born on ickertoone day" four words are known, one may be a name: (4 + 1/2) / 6 = 3/4.

    >>> real_words(["Ravik was born on ickertoone day"], {"was", "born", "on", "day"}.__contains__)
    array([0.75])
    """
    if isinstance(texts, str) or len(texts) == 0:
        raise InputError("real words are counted in a list of texts, and there is none")
    out = []
    for text in texts:
        values = [_value(word, known) for word in words(text)]
        out.append(sum(values) / len(values) if values else 0.0)
    return np.array(out)


def plausibility(perplexity: ArrayLike) -> Array:
    r"""The perplexity P of a text under a model, as a share: 1 for what is certain, 0 from a guess among all tokens on.

    .. math:: \max\Bigl(0,\; 1 - \frac{\ln P}{\ln 50\,000}\Bigr)

    (n,) to (n,).  Hand-worked: the square root of 50 000, which is 223.6, gives 1/2.
    """
    array = np.asarray(perplexity, dtype=np.float64)
    if (array < 1 - 1e-6).any() or np.isnan(array).any():
        raise InputError("a perplexity is at least 1: pass the exponential of the mean negative log-likelihood")
    return np.asarray(np.clip(1 - np.log(array) / np.log(GUESS), 0, 1), dtype=np.float64)


def fluency(texts: Sequence[str], perplexity: ArrayLike | None, real: ArrayLike) -> Array:
    r"""How far each text is ordinary language: the harmonic mean of three shares; 0 for an empty text.

    .. math:: \mathrm{HM}\Bigl(\max\bigl(0, 1 - \tfrac{\ln P}{\ln 50\,000}\bigr),\; 1 - \mathrm{rep}_3,\; W\Bigr)

    P is the text's ``perplexity`` under the model before unlearning, given the question (None: it is not known, and the
    mean is of the other two; :func:`plausibility`); rep₃ the share of its 3-grams of words that occurred in it before
    (:func:`~expunge.evaluation.metrics.repetition.repetition`); W its :func:`real_words`.  From (n,) to (n,).  Answers that
    are as ordinary as they are wrong are fluent.  What the model before would never say costs, a refusal too: under
    a small model that was taught TOFU refusals have 0.58, a retrained model's answers 0.97 and made-up words 0.01.

    Hand-worked: P = 223.6, no repetition and W = 1 give 3 / (2 + 1 + 1) = 3/4.

    >>> fluency(["She writes novels."], [50_000 ** 0.5], [1.0])
    array([0.75])
    """
    empty = np.array([not text.strip() for text in texts])
    shares = [1 - repetition(texts, GRAM), np.asarray(real, dtype=np.float64)]
    if perplexity is not None:
        shares.insert(0, plausibility(np.where(empty, 1.0, np.asarray(perplexity, dtype=np.float64))))
    with np.errstate(divide="ignore"):
        means = len(shares) / (1 / np.stack(shares)).sum(axis=0)
    return np.where(empty, 0.0, means)


def _value(word: str, known: Callable[[str], bool]) -> float:
    lower = word.casefold()
    if CIRCLE.search(lower):
        return 0.0
    if word.isnumeric() or known(lower) or all(part.isnumeric() or known(part) for part in _parts(lower)):
        return 1.0
    return NAME if word[:1].isupper() else 0.0


def _parts(word: str) -> list[str]:
    return re.split(r"['’.\-]", word)
