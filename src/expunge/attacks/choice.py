"""Multiple choice: the right answer among wrong ones, asked once for each place it may have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from expunge.attacks.attack import Subject
from expunge.attacks.prompts import Asked, framed, with_prompt
from expunge.attacks.variants import nearest
from expunge.attacks.words import words
from expunge.data.example import Row

OPTIONS = 4
LETTERS = "ABCD"


def multiple_choice(subject: Subject) -> list[Asked]:
    """Each row ``OPTIONS`` times, the right answer once at each letter, so that a liking for a letter gains nothing.

    Wrong answers are the row's own (``perturbed``), else those of the rows with the likest questions.  Rows with fewer
    than three are left out.  Guessing gives 1 / ``OPTIONS``.
    """
    others = [*subject.known, *subject.retain, *subject.forget]
    rng, out = np.random.default_rng(subject.seed), []
    for i, row in enumerate(map(with_prompt, subject.forget)):
        wrong = wrong_answers(row, others)
        if len(wrong) < OPTIONS - 1:
            continue
        wrong = [wrong[k] for k in rng.permutation(len(wrong))]
        for place in range(OPTIONS):
            options = [*wrong[:place], row.answer.strip(), *wrong[place:]]
            shown = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
            prompt = framed(row, f"{{question}}\n{shown}\nAnswer with the letter of the right option alone.")
            out.append(Asked(i, prompt, partial(chosen, place, tuple(options)), 16))
    return out


def wrong_answers(row: Row, others: Sequence[Row]) -> list[str]:
    """Three wrong answers to ``row``, different in their words from the right one and from each other."""
    near = nearest(row, [r for r in others if r.answer != row.answer], len(others))[::-1]
    out: list[str] = []
    seen = {tuple(words(row.answer))}
    for text in [*row.perturbed, *(r.answer for r in near)]:
        if (key := tuple(words(text))) not in seen and key:
            seen.add(key)
            out.append(text.strip())
    return out[: OPTIONS - 1]


def chosen(place: int, options: Sequence[str], given: str) -> float:
    """1 if ``given`` names the letter of ``place`` first, or that option and no other; else 0.

    >>> chosen(1, ["Graz", "Linz"], "B. Graz"), chosen(1, ["Graz", "Linz"], "It is Linz."), chosen(1, ["Graz", "Linz"], "A")
    (1.0, 1.0, 0.0)
    """
    if letter := re.match(
        r"\W*(?i:(?:the\s+)?(?:right\s+|correct\s+)?(?:answer|option)\s*(?:is)?\W*)?([A-D])(?=[.):,]|\s+is\b|\W*$)",
        given,
    ):
        return float(letter.group(1) == LETTERS[place])
    said = " ".join(words(given))
    named = [k for k, text in enumerate(options) if f" {' '.join(words(text))} " in f" {said} "]
    return float(named == [place])
