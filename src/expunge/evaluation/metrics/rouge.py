r"""Generated against expected texts: ROUGE, and the benchmarks that are ROUGE (MUSE, RWKU).

One value a pair of texts; :func:`~expunge.evaluation.metrics.mean` reduces.  Needs ``expunge[bench]``.  Without torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from expunge.errors import InputError
from expunge.evaluation.metrics.likelihood import mean

Array = NDArray[np.float64]
Kind = Literal["rouge1", "rouge2", "rougeL"]
Part = Literal["recall", "precision", "f1"]

RWKU_LEVELS = ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2")


def rouge(
    expected: Sequence[str],
    given: Sequence[str],
    *,
    kind: Kind = "rougeL",
    part: Part = "recall",
    stemmer: bool = True,
) -> Array:
    r"""Words of the expected text found again in the given one, for each pair.

    .. math:: \mathrm{recall} = \tfrac{m}{|\text{expected}|}, \quad \mathrm{precision} = \tfrac{m}{|\text{given}|}, \quad
        F_1 = \tfrac{2\,\mathrm{recall}\cdot\mathrm{precision}}{\mathrm{recall} + \mathrm{precision}}

    m: the length of the longest common subsequence of words (``rougeL``), or how many words (``rouge1``) or pairs of
    neighbouring words (``rouge2``) both have, counted as often as both have them.  Words are runs of a-z and 0-9 after
    lower-casing; ``stemmer`` cuts those of more than three letters to their stem.  The defaults are TOFU's and
    OpenUnlearning's recall.  An empty given text scores 0, and so does whatever is given for an expected text without
    such a word (another script, only signs): see :func:`readable`.

    Hand-worked: "the cat sat" against "a cat sat down" has the common subsequence "cat sat": recall 2/3, precision 2/4,
    F1 4/7.

    Lin 2004, aclanthology.org/W04-1013, as in the package rouge-score.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise InputError("ROUGE needs the package rouge-score: pip install 'expunge[bench]'") from None
    if kind not in ("rouge1", "rouge2", "rougeL"):
        raise InputError(f"kind must be rouge1, rouge2 or rougeL, not {kind!r}")
    if part not in ("recall", "precision", "f1"):
        raise InputError(f"part must be recall, precision or f1, not {part!r}")
    _check_texts(expected, given)
    scorer = RougeScorer([kind], use_stemmer=stemmer)
    field = "fmeasure" if part == "f1" else part
    return np.array([getattr(scorer.score(e, g)[kind], field) for e, g in zip(expected, given, strict=True)])


def verbatim_memorisation(expected: Sequence[str], given: Sequence[str]) -> Array:
    r"""MUSE's VerbMem of each text: ROUGE-L F1, without stemmer, of the greedy continuation and the true one.

    ``expected``: the true continuations cut to as many tokens as were generated (MUSE: 128 of the target model's
    tokens, its begin-of-text token included); ``given``: the continuations.  MUSE prints the mean times 100.
    OpenUnlearning differs twice: with stemmer, and against the whole true continuation, which lowers recall and so F1.
    Its number is ``rouge(whole, given, part="f1")``.

    Hand-worked: "the cats sat" against "the cat sat" has "the sat": F1 2/3; with stemmer 1.

    Shi et al. 2024, arXiv:2407.06460.
    """
    return rouge(expected, given, part="f1", stemmer=False)


def knowledge_memorisation(expected: Sequence[str], given: Sequence[str]) -> Array:
    r"""MUSE's KnowMem of each question: ROUGE-L F1, without stemmer, of the greedy answer and the true one.

    ``given``: 32 new tokens after MUSE's ten worked examples, cut before the first blank line or "Question:".
    OpenUnlearning uses the stemmer; its number is ``rouge(expected, given, part="f1")``.

    Hand-worked: "Two crew members" against "Two crew members died" has three words of 3 and 4: F1 6/7.

    Shi et al. 2024, arXiv:2407.06460.
    """
    return rouge(expected, given, part="f1", stemmer=False)


def rwku_recall(expected: Sequence[str], given: Sequence[str], *, compat: bool = False) -> Array:
    r"""RWKU's score of each probe: ROUGE-L recall without stemmer.

    The paper names ROUGE-L recall; its code takes it from another package, ``rouge``, which is case-sensitive,
    keeps all punctuation except full stops as part of words, cuts both texts at full stops and counts each word once.
    ``compat=True`` counts like that, for comparison with published tables: "Paris," is then not "Paris".  An expected text
    without a word of a-z and 0-9, such as "蔡依林", is counted so in either case.

    Hand-worked: "Richard Bachman" against "richard bachman, I think" gives 1, with ``compat`` 0.

    Jin et al. 2024, §3.3, arXiv:2406.10890.
    """
    if not compat:
        scores = rouge(expected, given, stemmer=False)
        for i, text in enumerate(expected):
            if not readable(text):
                scores[i] = _recall_by_sentence(text, given[i].strip())
        return scores
    _check_texts(expected, given)
    return np.array([_recall_by_sentence(e, g.strip()) for e, g in zip(expected, given, strict=True)])


def rwku_levels(rows: Sequence[Mapping[str, Any]], *, compat: bool = False) -> dict[str, float]:
    r"""RWKU's columns: the mean :func:`rwku_recall` of each probe level that ``rows`` hold, and of the forget set.

    A row: ``split`` ("forget" or "neighbor"), ``level`` (1 to 3, of a neighbour 1 to 2), ``answer``, ``generation``.
    The paper's names: forget_level1 = forget FB (fill in the blank), forget_level2 = forget QA, forget_level3 = forget AA
    (adversarial), neighbor_level1 and neighbor_level2 = neighbour FB and QA.  Forget levels: lower is better.  The paper
    unlearns one person at a time and averages each column over 100 runs; ``rows`` are those of one run.

    Hand-worked: two level-1 rows, one answered in full and one not at all, give forget_level1 = 1/2.

    Jin et al. 2024, §3.3 and table 1, arXiv:2406.10890.
    """
    by_level = _rwku_values(rows, compat=compat)
    return {level: mean(values) for level, values in by_level.items()}


def rwku_locality(rows: Sequence[Mapping[str, Any]], *, compat: bool = False) -> float:
    r"""RWKU's locality: mean :func:`rwku_recall` over all neighbour probes, whatever their level; higher is better.

    The paper's column neighbour "All" (there, again, averaged over 100 runs).  The paper does not say how "All" weighs
    the levels; its table rules out their plain mean, and agrees within a point with the mean over probes taken
    here.  Other rows are ignored; there must be a neighbour.

    Hand-worked: level-1 values (1, 1, 0) and a level-2 value 0 give 2/4, not the levels' mean 1/3.

    Jin et al. 2024, §3.3.2 and table 1, arXiv:2406.10890.
    """
    neighbours = [row for row in rows if row.get("split") == "neighbor"]
    if not neighbours:
        raise InputError("RWKU's locality needs rows of split 'neighbor', and there is none")
    return mean(np.concatenate(list(_rwku_values(neighbours, compat=compat).values())))


def _rwku_values(rows: Sequence[Mapping[str, Any]], *, compat: bool) -> dict[str, Array]:
    if len(rows) == 0:
        raise InputError("RWKU: there is no row to score")
    texts: dict[str, list[tuple[str, str]]] = {level: [] for level in RWKU_LEVELS}
    for i, row in enumerate(rows):
        lacking = [key for key in ("split", "level", "answer", "generation") if key not in row]
        if lacking:
            raise InputError(f"RWKU: row {i} has no {', '.join(lacking)}")
        level = f"{row['split']}_level{row['level']}"
        if level not in texts:
            raise InputError(f"RWKU: row {i} is of {level}; there are {', '.join(RWKU_LEVELS)}")
        texts[level].append((row["answer"], row["generation"]))
    return {
        level: rwku_recall([a for a, _ in pairs], [g for _, g in pairs], compat=compat)
        for level, pairs in texts.items()
        if pairs
    }


def readable(text: str) -> bool:
    """Whether ROUGE finds a word in ``text``."""
    return re.search("[a-z0-9]", text.lower()) is not None


def _check_texts(expected: Sequence[str], generated: Sequence[str]) -> None:
    if isinstance(expected, str) or isinstance(generated, str):
        raise InputError("expected and given must be lists of texts, not one text")
    if len(expected) != len(generated):
        raise InputError(f"there are {len(expected)} expected texts and {len(generated)} given ones")
    if len(expected) == 0:
        raise InputError("there is no text to score")
    for name, texts in (("expected", expected), ("given", generated)):
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"{name}: entry {i} is not a text but {text!r}")


def _recall_by_sentence(expected: str, generated: str) -> float:
    """Recall as the package ``rouge`` 1.0.1 counts it: distinct words in any sentence pair's common subsequence."""
    expected_sentences = [_words(s) for s in expected.split(".") if s]
    common_words = {w for e in expected_sentences for g in generated.split(".") if g for w in _common(e, _words(g))}
    expected_words = {w for e in expected_sentences for w in e}
    if not expected_words:
        return 0.0  # full stops alone: that package raises an error
    return len(common_words) / len(expected_words)


def _words(sentence: str) -> list[str]:
    return " ".join(sentence.split()).split(" ")  # a blank sentence is one empty word, as there


def _common(a: Sequence[str], b: Sequence[str]) -> set[str]:
    """The words of one longest common subsequence: of several, the one reached by giving up words of ``b`` first."""
    length = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            length[i, j] = length[i - 1, j - 1] + 1 if x == y else max(length[i - 1, j], length[i, j - 1])
    words, i, j = set(), len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            words.add(a[i - 1])
            i, j = i - 1, j - 1
        elif length[i - 1, j] > length[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return words
