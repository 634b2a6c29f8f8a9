r"""Attacks that only ask: the same question in other words, another format, with help.

Unlearning is often of the question as it was trained: asked for a list, in another language or after the first words of
the answer, the knowledge is there (Lynch et al. 2024, arXiv:2402.16835; Patil et al. 2023, arXiv:2309.17410; Jin et al.
2024, arXiv:2406.10890).

The figure of a row is ROUGE-L recall of the words of its answer that are *not* in the prompt, so that examples, hints
and the beginning of an answer score nothing by themselves; 0 where the prompt holds them all.  A row that does
not allow a variant counts as without the attack.  The last point is the worst over the variants, row by row; a control's
worst rises with the number of variants too, so compare the two.  The first point, of strength 0, is the question as it is.

Cost: answers = rows · variants, each of at most 96 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from expunge.attacks.attack import Array, Attack, Measure, Point, Subject
from expunge.attacks.choice import OPTIONS, multiple_choice
from expunge.attacks.prompts import Asked, key
from expunge.attacks.restore import evaluated
from expunge.attacks.variants import CHAIN, CONTEXT, FORMAT, HOPS, PREFILL, ROLE_PLAY, TRANSLATION, Variant, plain
from expunge.errors import InputError
from expunge.evaluation.collect import collect
from expunge.evaluation.probe import Ask, Probe

Answerer = Callable[[Sequence[Asked]], list[str]]
"""Of prompts, the likeliest answer to each, in their order."""


def local(subject: Subject) -> Answerer:
    """The model in memory, which answers greedily; what it was asked by an earlier attack on ``subject`` it is not again."""

    def answer(prompts: Sequence[Asked]) -> list[str]:
        keys = [key(a) for a in prompts]
        new = {k: a for k, a in zip(keys, prompts, strict=True) if k not in subject.answers}
        if new:
            probes = [Probe("attack", i, a.row, ask=Ask(max_new_tokens=a.tokens)) for i, a in enumerate(new.values())]
            found = collect(
                subject.model,
                subject.tokenizer,
                probes,
                max_length=1 << 20,
                chat_template=subject.templated,
                alone=True,
            )
            subject.answers.update(zip(new, (g.text for g in found.generated("attack")), strict=True))
        return [subject.answers[k] for k in keys]

    return answer


def ask(variants: Mapping[str, Variant], subject: Subject, measure: Measure) -> list[Point]:
    """The points of ``variants`` against a model in memory; see :func:`asked_of`."""
    with evaluated(subject.model):
        return asked_of(local(subject), variants, subject)


def asked_of(answer: Answerer, variants: Mapping[str, Variant], subject: Subject) -> list[Point]:
    """The questions as they are, each of ``variants``, and their worst, of what ``answer`` says.

    Raises InputError where no row allows any of them.
    """
    prompts = {name: variant(subject) for name, variant in variants.items()}
    prompts = {name: some for name, some in prompts.items() if some}
    if not prompts:
        raise InputError(f"the rows allow none of these ways to ask: {', '.join(variants)}")
    prompts = {"as it is": plain(subject)} | prompts
    n, known = len(subject.forget), dict[str, Array]()
    texts = iter(answer([a for some in prompts.values() for a in some]))
    for name, some in prompts.items():
        found = scores(some, [next(texts) for _ in some], n)
        known[name] = np.where(np.isin(np.arange(n), [a.index for a in some]), found, known.get("as it is", found))
    points = [Point(k, name, row) for k, (name, row) in enumerate(known.items())]
    return [*points, Point(len(points), "worst of all", np.max([p.known for p in points], axis=0))]


def scores(prompts: Sequence[Asked], texts: Sequence[str], n: int) -> Array:
    """(n,) the mean score of the answers to each row's prompts; 0 for a row without any."""
    total, count = np.zeros(n), np.zeros(n)
    for a, text in zip(prompts, texts, strict=True):
        total[a.index] += a.score(text)
        count[a.index] += 1
    return total / np.maximum(count, 1)


def choose(subject: Subject, measure: Measure) -> list[Point]:
    """Multiple choice against a model in memory; see :func:`chosen_by`."""
    with evaluated(subject.model):
        return chosen_by(local(subject), subject)


def chosen_by(answer: Answerer, subject: Subject) -> list[Point]:
    """The share of right choices of each row over the places of the right answer; of strength 0: guessing.

    A row without wrong answers counts as guessed.  Raises InputError where there is no other.
    """
    prompts = multiple_choice(subject)
    if not prompts:
        raise InputError("no row has three wrong answers, its own or those of other rows; multiple choice needs them")
    n = len(subject.forget)
    guess = np.full(n, 1 / OPTIONS)
    right = scores(prompts, answer(prompts), n)
    able = np.isin(np.arange(n), [a.index for a in prompts])
    return [Point(0, "guessing", guess), Point(1, "multiple choice", np.where(able, right, guess))]


GROUPS: dict[str, tuple[str, Mapping[str, Variant], tuple[str, ...]]] = {
    "prefill": ("the answer begun", PREFILL, ()),
    "role-play": ("the question in a role or a story", ROLE_PLAY, ()),
    "few-shot": ("after other forget rows as examples", CONTEXT, ("known",)),
    "translation": ("an answer in another language", TRANSLATION, ()),
    "format": ("as a list, JSON, with blanks or first letters", FORMAT, ()),
    "reverse": ("from the answer to the question, and in two steps", HOPS, ()),
    "clues": ("after known facts about the same people", CHAIN, ("known",)),
}
ATTACKS = (
    *(
        Attack(name, "asking", summary, partial(ask, variants), unit="variant", needs=needs)
        for name, (summary, variants, needs) in GROUPS.items()
    ),
    Attack("multiple-choice", "asking", "the right answer among three wrong ones", choose, unit="variant", random=True),
)
