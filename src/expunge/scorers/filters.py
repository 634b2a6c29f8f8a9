"""Filters of generated texts: relevance, length, fluency, duplicates.  numpy only."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError
from expunge.scorers.mentions import normalised

GRAM = 5  # characters
SHARED = 8  # k in the docstring of filter_texts: more costs memory, fewer costs comparisons
REASONS = ("irrelevant", "too short", "too long", "perplexity", "duplicate", "near duplicate")


@dataclass(frozen=True)
class Filtered:
    """``indices`` (k,) of the texts that pass, in order, and the number ``dropped`` for each reason."""

    indices: NDArray[np.intp]
    dropped: dict[str, int]


def filter_texts(
    texts: Sequence[str],
    *,
    relevance: ArrayLike | None = None,
    threshold: float = 0.5,
    lengths: ArrayLike | None = None,
    shortest: int = 1,
    longest: int | None = None,
    perplexity: ArrayLike | None = None,
    cap: float | None = None,
    similarity: float = 0.8,
) -> Filtered:
    r"""The texts that are relevant, of the right length, fluent, and no (near) duplicates of a selected one before them.

    Relevance (n,) at least ``threshold``; length from ``shortest`` to ``longest``, in words or as ``lengths`` (n,) counts
    (tokens); ``perplexity`` (n,) at most ``cap``; not a duplicate, compared by letters and digits only, of a
    selected text before; nor one with at least ``similarity`` of the character 5-grams in common:

    .. math:: J(a, b) = \frac{|G_a \cap G_b|}{|G_a \cup G_b|}

    Filters without values are off; a similarity above 1 turns near duplicates off.  Of two duplicates the earlier is
    selected; a text counts for the first reason that drops it.  J is exact, and computed only where it can be t: two texts
    with J ≥ t share k of the |G| - ⌈t|G|⌉ + k rarest grams of each.  Bayardo et al. 2007, doi:10.1145/1242572.1242591,
    have k = 1.

    >>> filter_texts(["A cat sat.", "a cat sat", "Dogs bark.", "x"], relevance=[1, 1, 0.9, 0.2]).indices.tolist()
    [0, 2]
    """
    n = len(texts)
    if isinstance(texts, str):
        raise InputError("the texts must be a list, not one text")
    if (perplexity is None) != (cap is None):
        raise InputError("perplexity and cap belong together: give both or neither")
    if not similarity > 0:
        raise InputError(f"the similarity that makes a near duplicate must lie above 0, not {similarity}")
    if longest is not None and longest < shortest:
        raise InputError(f"no text is at least {shortest} and at most {longest} long")
    relevant = _numbers(relevance, n, "relevance", default=math.inf) >= threshold
    long = np.array([len(t.split()) for t in texts]) if lengths is None else _numbers(lengths, n, "lengths")
    fluent = _numbers(perplexity, n, "perplexity", default=-math.inf) <= (math.inf if cap is None else cap)
    plain = [bare(t) for t in texts]
    near_duplicates = _NearDuplicates(plain, similarity)
    selected_texts: set[str] = set()
    indices, dropped = [], dict.fromkeys(REASONS, 0)
    for i, text in enumerate(plain):
        if not relevant[i]:
            reason = "irrelevant"
        elif long[i] < shortest:
            reason = "too short"
        elif longest is not None and long[i] > longest:
            reason = "too long"
        elif not fluent[i]:
            reason = "perplexity"
        elif text in selected_texts:
            reason = "duplicate"
        elif near_duplicates.has_near_duplicate(i):
            reason = "near duplicate"
        else:
            selected_texts.add(text)
            near_duplicates.add(i)
            indices.append(i)
            continue
        dropped[reason] += 1
    return Filtered(np.array(indices, dtype=np.intp), dropped)


def bare(text: str) -> str:
    """``text`` normalised, with one space for everything that is neither letter nor digit.

    >>> bare("  It's  A—test! ")
    'it s a test'
    """
    return " ".join(re.findall(r"[^\W_]+", normalised(text))) or normalised(text)


class _NearDuplicates:
    """The selected texts so far, indexed by their rarest grams."""

    def __init__(self, texts: Sequence[str], similarity: float) -> None:
        self.least = similarity
        self.grams = [_grams(t) for t in texts] if similarity <= 1 else []
        self.often = Counter(g for grams in self.grams for g in grams)
        self.index: dict[str, list[int]] = defaultdict(list)

    def has_near_duplicate(self, i: int) -> bool:
        shared = Counter(chain.from_iterable(self.index.get(g, ()) for g in self._rarest(i)))
        enough = min(SHARED, self._overlap(i))
        return any(count >= enough and self._jaccard(i, j) >= self.least for j, count in shared.items())

    def add(self, i: int) -> None:
        for g in self._rarest(i):
            self.index[g].append(i)

    def _rarest(self, i: int) -> list[str]:
        if not self.grams:
            return []
        grams = sorted(self.grams[i], key=lambda g: (self.often[g], g))
        return grams[: len(grams) - self._overlap(i) + SHARED]

    def _overlap(self, i: int) -> int:
        """The least number of grams that text ``i`` shares with a near duplicate."""
        return math.ceil(self.least * len(self.grams[i]) - 1e-9) if self.grams else 0

    def _jaccard(self, i: int, j: int) -> float:
        a, b = self.grams[i], self.grams[j]
        both = len(a & b)
        return both / (len(a) + len(b) - both)


def _grams(text: str) -> frozenset[str]:
    return frozenset(text[k : k + GRAM] for k in range(max(1, len(text) - GRAM + 1)))


def _numbers(values: ArrayLike | None, n: int, name: str, default: float = 0.0) -> NDArray[np.float64]:
    if values is None:
        return np.full(n, default)
    out = np.asarray(values, dtype=np.float64)
    if out.shape != (n,):
        raise InputError(f"{name} has the shape {out.shape}, but there are {n} texts")
    if np.isnan(out).any():
        raise InputError(f"{name}: the value of text {int(np.isnan(out).argmax())} is not a number")
    return out
