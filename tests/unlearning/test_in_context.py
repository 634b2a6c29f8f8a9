"""Rows put before a row: which, in what order, how many fit; and a level that is read behind them where that fits better."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from scipy.optimize import brentq

from expunge.data.example import Example
from expunge.training.predictions import Calibration, packed, shifted, unpacked
from expunge.unlearning import calibrate, in_context, unseen
from expunge.unlearning.in_context import Marks

NO = -100


def row(asked, answer):
    return Example((*asked, *answer), (*[NO] * len(asked), *answer))


def test_the_nearest_rows_stand_before_a_row_the_nearest_last():
    kept = [row([1, 2, 9], [20]), row([1, 7, 8], [21]), row([1, 2, 3], [22]), row([50], [1, 2, 3])]
    (made,) = in_context.behind([row([1, 2, 3], [30, 31])], kept)
    # all four fit; shared tokens of those asked: 3 of 3, 2 of 4, 1 of 5, none (the answer 1, 2, 3 does not count)
    assert made.input_ids == (50, 1, 2, 3, 1, 7, 8, 21, 1, 2, 9, 20, 1, 2, 3, 22, 1, 2, 3, 30, 31)
    assert made.labels == (*[NO] * 19, 30, 31)


def test_as_many_as_fit_and_at_most_eight():
    kept = [row([k, 1], [2] * 98) for k in range(10, 30)]
    (made,) = in_context.behind([row([1], [3])], kept)
    assert len(made.input_ids) == 5 * 100 + 2  # 512 tokens hold five
    assert made.input_ids[:1] == (14,) and made.input_ids[400:401] == (10,)  # of equals the first is the nearest
    (few,) = in_context.behind([row([1], [3])], [row([k, 1], [2]) for k in range(10, 30)])
    assert len(few.input_ids) == 8 * 3 + 2
    (tight,) = in_context.behind([row([1], [3])], kept, room=250)
    assert len(tight.input_ids) == 2 * 100 + 2
    alone = row([1], [3])
    assert in_context.behind([alone], kept, room=50) == [alone] and in_context.behind([alone], []) == [alone]


def test_of_very_many_rows_a_part_is_looked_through(monkeypatch):
    monkeypatch.setattr(in_context, "POOL", 3)
    (made,) = in_context.behind([row([1], [3])], [row([10 + k, 1], [2]) for k in range(9)])
    assert made.input_ids[:-2:3] == (17, 15, 12)  # one of each three


def test_a_plain_text_has_the_labels_that_it_had():
    """Its first token has no prediction alone, and none behind others."""
    text = Example((5, 6, 7), (5, 6, 7))
    (made,) = in_context.behind([text], [Example((5, 8), (5, 8))])
    assert made.input_ids == (5, 8, 5, 6, 7) and made.labels == (NO, NO, NO, 6, 7)
    assert unseen.labels(made) == unseen.labels(text)


def test_the_token_that_begins_a_text_stands_at_the_beginning_alone():
    """1 begins a text, 2 ends it; a chat template may have 1 at every turn, and some tokenizers have one for both."""
    kept = [row([1, 5], [6, 2]), row([1, 5, 7], [8, 2])]
    (made,) = in_context.behind([row([1, 5], [9, 2])], kept, Marks(1))
    assert made.input_ids == (1, 5, 7, 8, 2, 5, 6, 2, 5, 9, 2) and made.labels == (*[NO] * 9, 9, 2)
    text = Example((1, 5, 6, 2), (1, 5, 6, 2))
    (made,) = in_context.behind([text], kept[:1], Marks(1))
    assert made.input_ids == (1, 5, 6, 2, 5, 6, 2) and made.labels == (*[NO] * 4, 5, 6, 2)
    assert unseen.labels(made) == unseen.labels(text)
    turns = row([1, 5, 1, 4], [9, 2])
    (made,) = in_context.behind([turns], [turns], Marks(1))
    assert made.input_ids == 2 * turns.input_ids
    same = row([2, 5], [9, 2])
    (made,) = in_context.behind([same], [same], Marks(2))
    assert made.input_ids == (2, 5, 9, 2, 5, 9, 2)


def test_running_text_has_paragraphs_and_no_ends():
    """Of 2, which ends a text, the level is that of 10, which begins a paragraph; a row that was cut short has none."""
    marks = Marks(1, 2, (10, 11))
    kept = [row([1, 5], [6, 2]), row([1, 5, 7], [8])]
    (made,) = in_context.behind([row([1, 5], [9, 2])], kept, marks)
    assert made.input_ids == (1, 5, 7, 8, 5, 6, 10, 11, 5, 9, 10)
    assert made.labels == (*[NO] * 9, 9, 10)
    (cut,) = in_context.behind([row([1, 5], [9, 4])], kept, marks)
    assert cut.input_ids[-2:] == (9, 4) == cut.labels[-2:]
    alone = row([1, 5], [9, 2])
    assert in_context.behind([alone], [], marks) == [alone]


class Words:
    """A tokenizer of ``words``, of which 1 begins a text and 2 ends it."""

    def __init__(self, words, paragraph, end=2):
        self.words, self.paragraph, self.bos_token_id, self.eos_token_id = words, paragraph, 1, end

    def encode(self, text, *, add_special_tokens):
        assert text == "\n\n" and not add_special_tokens
        return self.paragraph

    def decode(self, ids):
        return "".join(self.words[t] for t in ids)


def test_the_marks_of_rows():
    words = {10: "\n", 11: "\n\n", 12: " ", 13: ""}
    rows = [row([1, 5], [6, 2])]
    assert in_context.marks(Words(words, [10, 10]), rows, template=False) == Marks(1, 2, (10, 10))
    assert in_context.marks(Words(words, [11]), rows, template=False) == Marks(1, 2, (11,))
    assert in_context.marks(Words(words, [11]), rows, template=True) == Marks(1), "the template parts the turns"
    assert in_context.marks(Words(words, [12, 10]), rows, template=False) == Marks(1), "a blank of its own"
    assert in_context.marks(Words(words, [13, 10]), rows, template=False) == Marks(1)
    assert in_context.marks(Words(words, []), rows, template=False) == Marks(1)
    assert in_context.marks(Words(words, [11], end=None), rows, template=False) == Marks(1)
    paragraphs = [*rows, row([1, 11], [6, 11, 2])]
    assert in_context.marks(Words(words, [11]), paragraphs, template=False) == Marks(1), "a paragraph does not end them"
    asked = [*rows, row([1, 11], [6, 2])]
    assert in_context.marks(Words(words, [11]), asked, template=False).end == 2, "those of a question do not count"


def test_the_level_is_read_behind_rows_to_keep_where_that_explains_unseen_rows_better(monkeypatch):
    """Two start models: one is the model that gives the level, the other that model behind the rows that are kept."""
    model, start = tiny.model(seed=1), tiny.model()
    own, rows, kept = tiny.examples(0, 3), tiny.examples(50, 4), tiny.examples(20, 5)
    plain = calibrate.calibrated(model, model, own, rows, 0)
    alone = calibrate.calibrated(model, model, own, rows, 0, kept)
    assert not alone.in_context and alone.calibration == plain.calibration
    assert alone.uncertainty == plain.uncertainty < 1e-2
    measured = unseen.by_row

    def by_row(of, examples, *rest):
        return (
            measured(model, in_context.behind(examples, kept), *rest) if of is start else measured(of, examples, *rest)
        )

    monkeypatch.setattr(calibrate, "by_row", by_row)
    made = calibrate.calibrated(model, start, own, rows, 0, kept)
    assert made.in_context and made.uncertainty < 1e-2 and abs(made.calibration.shift) < 1e-3
    behind = in_context.behind(own, kept)
    for i, (example, alone) in enumerate(zip(behind, own, strict=True)):
        assert len(example.input_ids) > len(alone.input_ids)
        labels = torch.tensor(example.labels)
        with torch.no_grad():
            logp = torch.log_softmax(model(torch.tensor([example.input_ids])).logits[0, :-1], 1)
        expected = logp[labels[1:] != NO, labels[1:][labels[1:] != NO]]
        torch.testing.assert_close(made.rows["forget"][i][:, 0], expected, atol=1e-4, rtol=1e-4)
        assert len(made.rows["forget"][i]) == len(unseen.labels(alone))


def test_the_level_of_an_end_is_that_of_a_new_paragraph(monkeypatch):
    """By the model itself: the end's logits and those of the token that begins a paragraph, exchanged."""
    model, start = tiny.model(seed=1), tiny.model()
    own, rows, kept = tiny.examples(0, 3), tiny.examples(50, 4), tiny.examples(20, 5)
    end = own[0].labels[-1]
    marks = Marks(None, end, (9, 10))
    assert end not in marks.between
    known = iter((1.0, 0.5))  # alone, behind rows to keep
    monkeypatch.setattr(calibrate, "uncertainty", lambda *_: next(known))
    held = calibrate.calibrated(model, start, own, rows, 0, kept, marks)
    made = in_context.behind(own, kept, marks)[0]
    assert made.labels[-1] == 9 and held.in_context
    with torch.no_grad():
        logits = model(torch.tensor([made.input_ids])).logits[0, -2]
    other = torch.arange(logits.shape[0])
    other[[end, 9]] = other[[9, end]]
    expected = packed(logits[other][None], torch.tensor([end]), held.calibration)[0]
    logp, (tokens, likeliest) = unpacked(held.rows["forget"][0][-1:])
    wanted, (wanted_tokens, wanted_likeliest) = unpacked(expected[None])
    torch.testing.assert_close(logp, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(likeliest.sort().values, wanted_likeliest.sort().values, atol=1e-4, rtol=1e-4)
    assert set(tokens[0].tolist()) == set(wanted_tokens[0].tolist())
    assert dict(zip(tokens[0].tolist(), likeliest[0].tolist(), strict=True))[end] == pytest.approx(
        float(logp), abs=1e-5
    )


def test_an_end_stays_one_where_the_level_is_read_alone(monkeypatch):
    model, start = tiny.model(seed=1), tiny.model()
    own, rows, kept = tiny.examples(0, 3), tiny.examples(50, 4), tiny.examples(20, 5)
    plain = calibrate.calibrated(model, start, own, rows, 0)
    end = int(unpacked(plain.rows["forget"][0])[1][0][0, 0])
    known = iter((0.5, 1.0))
    monkeypatch.setattr(calibrate, "uncertainty", lambda *_: next(known))
    held = calibrate.calibrated(model, start, own, rows, 0, kept, Marks(None, end, (9, 10)))
    assert not held.in_context
    assert all(torch.equal(held.rows["forget"][i], values) for i, values in plain.rows["forget"].items())


@pytest.mark.parametrize("made_up", [tiny.examples(50, 4), []], ids=["made up", "plain texts"])
def test_without_holdout_rows_the_mean_is_halfway_between_alone_and_right_no_more_often(monkeypatch, made_up):
    """By a plain loop of transformers behind the rows to keep, at the temperature and the shift that are said."""
    monkeypatch.setattr(calibrate, "context_helps", lambda _, kept, *__: bool(kept))
    model, start = tiny.model(seed=1), tiny.model()
    own, kept = tiny.examples(0, 3), tiny.examples(20, 5)
    end = own[0].labels[-1]
    marks = Marks(None, end, (9, 10))
    alone, read = (calibrate.as_sure(model, start, own, made_up, 0, *more) for more in ((), (kept, marks)))
    assert not alone.in_context and read.in_context and alone.calibration.shift == 0 != read.calibration.shift
    assert read.uncertainty is None
    here = [v[:, 0] for v in unseen.logp_and_entropy(start, made_up, 0)]
    behind = in_context.behind(made_up, kept, marks)
    tempered = unseen.by_row(model, behind, 0, calibrate.tempered)
    wanted = max(0.5, calibrate.calibration(tempered, here).temperature) if made_up else 1.0
    assert read.calibration.temperature == wanted
    plain, sharp = [], []
    for i, row in enumerate(in_context.behind(own, kept, marks)):
        labels = torch.tensor(row.labels)[1:]
        with torch.no_grad():
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1][labels != NO]
        expected = packed(logits, labels[labels != NO], read.calibration)
        of = [(logits / t).log_softmax(-1).gather(1, labels[labels != NO][:, None])[:, 0] for t in (1, wanted)]
        plain.append(of[0].exp().double().numpy())
        sharp.append(of[1].exp().double().numpy())
        torch.testing.assert_close(read.rows["forget"][i][:, 0], expected[:, 0], atol=1e-4, rtol=1e-4)
        said, wanted_likeliest = (unpacked(v)[1][1].sort().values for v in (read.rows["forget"][i], expected))
        torch.testing.assert_close(said, wanted_likeliest, atol=1e-4, rtol=1e-4)

    def right(shift):
        return [1 / (1 + (1 - p) / p * np.exp(shift)) for p in sharp]

    as_often = brentq(lambda s: sum(q.mean() for q in right(s)) - sum(p.mean() for p in plain), -20, 20)
    likelier = sum(np.log(q).mean() for q in right(as_often)) / 3
    means = [sum(float(held.rows["forget"][i][:, 0].mean()) for i in range(3)) / 3 for held in (alone, read)]
    assert means[1] == pytest.approx((means[0] + likelier) / 2, abs=1e-4)
    assert abs(means[0] - likelier) > 0.01
    tokens, likeliest = (v[0].tolist() for v in unpacked(read.rows["forget"][0][-1:])[1])
    assert likeliest[tokens.index(end)] == pytest.approx(float(read.rows["forget"][0][-1, 0]), abs=1e-4)


def test_a_few_made_up_answers_are_believed_no_very_low_temperature(monkeypatch):
    model, start, own, made_up = tiny.model(seed=1), tiny.model(), tiny.examples(0, 3), tiny.examples(50, 4)
    for found, taken in ((0.25, 0.5), (0.7, 0.7)):
        monkeypatch.setattr(calibrate, "calibration", lambda *_, found=found: Calibration(found, 1.0))
        monkeypatch.setattr(calibrate, "TEMPERATURES", (found,))
        assert calibrate.as_sure(model, start, own, made_up, 0).calibration == (taken, 0)


def test_each_row_to_keep_stands_behind_the_others_that_differ():
    kept = [row([1, 2], [20]), row([1, 3], [21]), row([1, 2], [20])]
    first, second, third = in_context.among(kept)
    assert first.input_ids == third.input_ids == (1, 3, 21, 1, 2, 20) and first.labels == (*[NO] * 5, 20)
    assert second.input_ids == (1, 2, 20, 1, 2, 20, 1, 3, 21)
    assert in_context.among(kept[:1]) == kept[:1] and in_context.among([]) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [(lambda tokens: -50.0 + tokens, True), (lambda tokens: -1.0 - tokens, False), (lambda tokens: -1.0, False)],
    ids=["likelier behind others", "less likely", "the same"],
)
def test_context_helps_where_it_makes_rows_to_keep_likelier(monkeypatch, after, expected):
    """A row is as likely as ``after`` says of its number of tokens; read as one text, within the model's room."""
    read = []

    def logp_and_entropy(model, rows, _):
        read.append(list(rows))
        return [torch.tensor([[after(len(r.input_ids)), 0.0]]) for r in rows]

    monkeypatch.setattr(calibrate, "logp_and_entropy", logp_and_entropy)
    monkeypatch.setattr(calibrate, "positions", lambda model: 8)
    kept, marks = [row([1, k], [2, 7]) for k in range(3, 6)], Marks(None, 7, (9,))
    assert calibrate.context_helps(tiny.model(), kept, 0, marks) is expected
    assert read == [kept, in_context.among(kept, marks, room=8)]
    assert read[1][0].input_ids == (1, 4, 2, 9, 1, 3, 2, 9)  # a second one does not fit
    assert not calibrate.context_helps(tiny.model(), kept[:1], 0, marks)
    assert not calibrate.context_helps(tiny.model(), [], 0, marks)


def test_a_model_that_knows_the_rows_to_keep_gives_the_level_without_reading_them():
    """Taught four rows by heart, at the positions at which they stand alone."""
    model, start = tiny.model(seed=1), tiny.model()
    own, kept = tiny.examples(0, 3), tiny.examples(20, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        for example in kept:
            labels = torch.tensor([[NO, *example.labels[1:]]])
            optimizer.zero_grad()
            model(torch.tensor([example.input_ids]), labels=labels).loss.backward()
            optimizer.step()
    held = calibrate.as_sure(model, start, own, [], 0, kept)
    assert not held.in_context
    alone = calibrate.as_sure(model, start, own, [], 0)
    assert all(torch.equal(held.rows["forget"][i], values) for i, values in alone.rows["forget"].items())


@pytest.mark.parametrize("way", ["calibrated", "as_sure"])
def test_a_row_that_nothing_fits_in_front_of_keeps_its_end(monkeypatch, way):
    """The rows to keep are longer than the room: each row is read alone, its end among the likeliest where it was."""
    model, start = tiny.model(seed=1), tiny.model()
    own, others, kept = tiny.examples(0, 3), tiny.examples(50, 4), [row([5] * 600, [6])]
    marks = Marks(None, own[0].labels[-1], (9, 10))
    of = getattr(calibrate, way)
    alone = of(model, start, own, others, 0)
    known = iter((1.0, 0.5))
    monkeypatch.setattr(calibrate, "uncertainty", lambda *_: next(known, None))
    monkeypatch.setattr(calibrate, "context_helps", lambda _, kept, *__: bool(kept))
    read = of(model, start, own, others, 0, kept, marks)
    assert read.in_context
    for i, values in alone.rows["forget"].items():  # made-up rows give no shift alone
        shift = read.calibration.shift - alone.calibration.shift
        moved = shifted(values, torch.tensor(unseen.labels(own[i])), shift)
        torch.testing.assert_close(read.rows["forget"][i], moved, atol=1e-4, rtol=1e-4)
