"""Rows put before a row: which, in what order, how many fit; and a level that is read behind them where that fits better."""

from __future__ import annotations

import tiny
import torch

from expunge.data.example import Example
from expunge.unlearning import in_context, unseen

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
    assert made.input_ids[:-2:3] == (16, 13, 10)  # every third


def test_a_plain_text_has_the_labels_that_it_had():
    """Its first token has no prediction alone, and none behind others."""
    text = Example((5, 6, 7), (5, 6, 7))
    (made,) = in_context.behind([text], [Example((5, 8), (5, 8))])
    assert made.input_ids == (5, 8, 5, 6, 7) and made.labels == (NO, NO, NO, 6, 7)
    assert unseen.labels(made) == unseen.labels(text)


def test_the_token_that_begins_a_text_stands_at_the_beginning_alone():
    """1 begins a text, 2 ends it; a chat template may have 1 at every turn, and some tokenizers have one for both."""
    kept = [row([1, 5], [6, 2]), row([1, 5, 7], [8, 2])]
    (made,) = in_context.behind([row([1, 5], [9, 2])], kept, bos=1)
    assert made.input_ids == (1, 5, 7, 8, 2, 5, 6, 2, 5, 9, 2) and made.labels == (*[NO] * 9, 9, 2)
    text = Example((1, 5, 6, 2), (1, 5, 6, 2))
    (made,) = in_context.behind([text], kept[:1], bos=1)
    assert made.input_ids == (1, 5, 6, 2, 5, 6, 2) and made.labels == (*[NO] * 4, 5, 6, 2)
    assert unseen.labels(made) == unseen.labels(text)
    turns = row([1, 5, 1, 4], [9, 2])
    (made,) = in_context.behind([turns], [turns], bos=1)
    assert made.input_ids == 2 * turns.input_ids
    same = row([2, 5], [9, 2])
    (made,) = in_context.behind([same], [same], bos=2)
    assert made.input_ids == (2, 5, 9, 2, 5, 9, 2)


def test_the_level_is_read_behind_rows_to_keep_where_that_explains_unseen_rows_better(monkeypatch):
    """Two start models: one is the model that gives the level, the other that model behind the rows that are kept."""
    model, start = tiny.model(seed=1), tiny.model()
    own, rows, kept = tiny.examples(0, 3), tiny.examples(50, 4), tiny.examples(20, 5)
    plain = unseen.calibrated(model, model, own, rows, 0)
    alone = unseen.calibrated(model, model, own, rows, 0, kept)
    assert not alone.in_context and alone.calibration == plain.calibration
    assert alone.uncertainty == plain.uncertainty < 1e-2
    measured = unseen._by_row

    def by_row(of, examples, *rest):
        return (
            measured(model, in_context.behind(examples, kept), *rest) if of is start else measured(of, examples, *rest)
        )

    monkeypatch.setattr(unseen, "_by_row", by_row)
    made = unseen.calibrated(model, start, own, rows, 0, kept)
    assert made.in_context and made.uncertainty < 1e-2 and abs(made.calibration.shift) < 1e-3
    marked = unseen.calibrated(model, start, own, rows, 0, kept, own[0].input_ids[0])
    assert not torch.equal(marked.rows["forget"][0], made.rows["forget"][0]), "the beginning of a text is marked once"
    behind = in_context.behind(own, kept)
    for i, (example, alone) in enumerate(zip(behind, own, strict=True)):
        assert len(example.input_ids) > len(alone.input_ids)
        labels = torch.tensor(example.labels)
        with torch.no_grad():
            logp = torch.log_softmax(model(torch.tensor([example.input_ids])).logits[0, :-1], 1)
        expected = logp[labels[1:] != NO, labels[1:][labels[1:] != NO]]
        torch.testing.assert_close(made.rows["forget"][i][:, 0], expected, atol=1e-4, rtol=1e-4)
        assert len(made.rows["forget"][i]) == len(unseen.labels(alone))
