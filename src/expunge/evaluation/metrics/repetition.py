r"""Repetition within a text, a symptom of over-unlearning.  Without torch.

A *word* is a run of characters between blanks, with its case and its punctuation.  Bad input is an
:class:`~expunge.errors.InputError`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.errors import InputError

Array = NDArray[np.float64]


def repetition(texts: Sequence[str], n: int) -> Array:
    r"""Share of each text's n-grams that occurred in it before.

    .. math:: \mathrm{rep}_n = 1 - \frac{|\text{different n-grams}|}{|\text{n-grams}|}

    From texts to (texts,), in [0, 1); 0 for a text of fewer than n words.  Ext-Sub reports the means for n = 1 to 4, and
    that of n = 4 first.  It counts the tokens of the model's own tokenizer and its begin token, here it is words: figures
    of models with different tokenizers are comparable, but not with the published ones.

    Hand-worked: "a b a b a" has the pairs ab, ba, ab, ba, of which 2 are different.

    >>> repetition(["a b a b a"], 2)
    array([0.5])

    Welleck et al. 2020, arXiv:1908.04319; Hu et al. 2024, arXiv:2308.08090.
    """
    out = []
    for text in _checked(texts, n):
        grams = _grams(text, n)
        out.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return np.array(out)


def distinct(texts: Sequence[str], n: int) -> float:
    r"""Distinct-n: how many of all n-grams in a set of texts are different ones.

    .. math:: \frac{\bigl|\bigcup_i G_n(y_i)\bigr|}{\sum_i |G_n(y_i)|}

    From texts to a number in (0, 1], or 0 where no text has n words.  More or longer texts lower it, so compare only sets
    of the same prompts.

    Hand-worked: "a b" and "a c" have the words a, b, a, c, of which 3 are different.

    >>> distinct(["a b", "a c"], 1)
    0.75

    Li et al. 2016, arXiv:1510.03055.
    """
    grams = [gram for text in _checked(texts, n) for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _checked(texts: Sequence[str], n: int) -> Sequence[str]:
    if isinstance(texts, str) or len(texts) == 0:
        raise InputError("repetition is measured on a list of texts, and there is none")
    if n < 1:
        raise InputError(f"an n-gram has at least one word, not {n}")
    return texts
