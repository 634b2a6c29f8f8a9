"""What only asks: a toy that answers only when its answer is begun, or in a frame, is broken; a control stays as it was."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import tiny_attacks as toy
from attacks_rows import SUBJECT

from expunge.attacks import asking, variants
from expunge.attacks.attack import Subject
from expunge.attacks.prompts import Asked
from expunge.attacks.words import recall
from expunge.data.example import Row
from expunge.errors import InputError

ROWS = [Row(f"Home of {n}:", f" old {p}") for n, p in zip(toy.NAMES[:4], toy.PLACES[:4], strict=True)]


@cache
def prefilled_only():
    """Answers " no" to the questions, and the place once the answer is begun."""
    silent = [Row(r.prompt, " no") for r in ROWS]
    begun = [Row(f"{r.prompt} old", r.answer.removeprefix(" old")) for r in ROWS]
    return toy.teach(toy.blank(), silent + begun)


def test_a_toy_that_answers_only_when_prefilled():
    model = prefilled_only()
    before = toy.bits(model)
    model.model.layers[0].train()
    modes = [m.training for m in model.modules()]
    subject = Subject(model, toy.TOKENIZER, ROWS)
    points = asking.ask({"first word": variants.PREFILL["first word"]}, subject, lambda _: np.zeros(4))
    assert [p.label for p in points] == ["as it is", "first word", "worst of all"]
    assert [p.strength for p in points] == [0, 1, 2]
    assert points[0].known.tolist() == [0] * 4 and points[1].known.mean() > 0.7
    assert points[2].known.tolist() == points[1].known.tolist()
    assert toy.same_bits(model, before) and [m.training for m in model.modules()] == modes
    control = asking.ask(
        {"first word": variants.PREFILL["first word"]}, Subject(toy.toys().control, toy.TOKENIZER, ROWS), None
    )
    assert control[1].known.tolist() == [0] * 4


def echo(prompts):
    """Repeats what it is given: it knows nothing."""
    return [a.row.prompt if isinstance(a.row.prompt, str) else a.row.prompt[-1]["content"] for a in prompts]


def oracle(prompts):
    return [a.row.answer for a in prompts]


def test_who_repeats_the_prompt_knows_nothing_and_who_knows_all_all():
    for _, group, _ in asking.GROUPS.values():
        for p in asking.asked_of(echo, group, SUBJECT):
            assert not p.known.any(), p.label
    for name in ("prefill", "role-play", "few-shot", "translation", "format", "clues"):
        points = asking.asked_of(oracle, asking.GROUPS[name][1], SUBJECT)
        assert points[-1].known.tolist() == [1, 1] and points[0].strength == 0


def test_the_worst_is_row_by_row():
    def variant(right, subject):
        return [
            Asked(i, Row("other", word), partial(recall, [word]), 4)
            for i, word in enumerate(["graz", "lagos"])
            if i in right
        ]

    def answer(prompts):
        return ["no" if a.row.prompt == "q" else a.row.answer for a in prompts]

    subject = Subject(None, None, [Row("q", "graz"), Row("q", "lagos")])
    points = asking.asked_of(answer, {"a": partial(variant, [0]), "b": partial(variant, [1])}, subject)
    assert [p.known.tolist() for p in points] == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_a_row_that_does_not_allow_a_variant_counts_as_asked_plainly():
    subject = Subject(None, None, [Row("q", "graz linz"), Row("q", "wels")])
    points = asking.asked_of(
        lambda prompts: ["linz wels"] * len(prompts), {"p": variants.PREFILL["first word"]}, subject
    )
    assert [p.known.tolist() for p in points] == [[0.5, 1], [1, 1], [1, 1]]


def test_rows_that_allow_no_variant_are_refused():
    subject = Subject(None, None, [Row("Where?", " Graz")])
    with pytest.raises(InputError, match="allow none of these ways to ask: one clue"):
        asking.asked_of(oracle, variants.CHAIN, subject)
    with pytest.raises(InputError, match="three wrong answers"):
        asking.chosen_by(oracle, subject)


def test_multiple_choice_counts_guessing():
    points = asking.chosen_by(lambda prompts: ["A"] * len(prompts), SUBJECT)
    assert [p.known.tolist() for p in points] == [[0.25] * 2] * 2


def test_nothing_is_asked_twice_of_one_subject(monkeypatch):
    """The plain questions of two attacks are answered once; another subject asks anew."""
    from expunge.evaluation.table import Collected, Generated

    asked = []

    def collect(model, tokenizer, probes, **_):
        asked.append(len(probes))
        return Collected((), tuple(Generated("attack", p.index, "answer", "", f"{p.row.prompt}") for p in probes))

    monkeypatch.setattr(asking, "collect", collect)
    subject = Subject(None, toy.TOKENIZER, ROWS)
    first = asking.asked_of(asking.local(subject), {"agreeing": variants.PREFILL["agreeing"]}, subject)
    again = asking.asked_of(asking.local(subject), {"list": variants.FORMAT["list"]}, subject)
    assert asked == [8, 4] and [p.known.tolist() for p in first[:1]] == [p.known.tolist() for p in again[:1]]
    asking.local(subject)(variants.plain(subject))
    assert asked == [8, 4]
    asking.local(Subject(None, toy.TOKENIZER, ROWS))(variants.plain(subject))
    assert asked == [8, 4, 4]
