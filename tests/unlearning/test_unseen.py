"""Levels of tokens from rows that were never seen, by hand and against a plain loop of transformers."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import tiny
import torch

from expunge.data.example import Example, Row
from expunge.training.predictions import packed
from expunge.unlearning import calibrate, unseen


def example(prompt, answer):
    return Example((*prompt, *answer), (*[-100] * len(prompt), *answer))


def test_the_kinds_of_tokens():
    """Said before, alone or after the token before it; in none, few, some, most of the other answers."""
    it = example([1, 2, 3], [2, 3, 9, 4, 2])
    found = {2: 1, 3: 5, 9: 2, 4: 10}  # of 20 answers
    assert unseen.kinds(it, found, 20) == [(1, 1), (2, 2), (0, 2), (0, 3), (1, 1)]
    assert unseen.kinds(it, found, 20, {2, 9}) == [(1, 0), (2, 2), (0, 1), (0, 3), (1, 0)]  # 0, 5, 1 and 10 of 19
    assert unseen.kinds(example([], [1, 1, 1]), {}, 1, {1}) == [(1, 0), (2, 0)]  # the first is never scored


def test_each_token_has_the_mean_of_its_kind():
    rows = [example([1], [5, 6]), example([1], [5, 7]), example([1], [5, 5])]
    logp = [torch.tensor(v) for v in ([-1.0, -4.0], [-2.0, -6.0], [-3.0, -0.5])]
    of = [torch.stack([v, 1 - v], -1) for v in logp]  # an entropy of each beside it
    made = unseen.levels([example([1], [5, 5, 8]), example([8], [8])], rows, of)
    every = -16.5 / 6
    kind = {  # 5 is in both other answers, 6 and 7 in none
        "first 5": (-6.0 + 5 * every) / 8,
        "second 5": (-0.5 + 5 * every) / 6,
        "rare": (-10.0 + 5 * every) / 7,
    }
    expected = [kind["first 5"], kind["second 5"], kind["rare"]]
    torch.testing.assert_close(made[0], torch.tensor([(v, 1 - v) for v in expected]))
    torch.testing.assert_close(
        made[1], torch.tensor([(every, 1 - every)])
    )  # rare and said before: no such one was there


def test_over_rows_of_one_kind_nothing_is_lost():
    """Without other kinds a row's level is the mean over the unseen tokens."""
    rows = [example([1], [k]) for k in range(10, 20)]
    of = [torch.tensor([[-float(k), 0.5]]) for k in range(10)]
    made = unseen.levels([example([1], [30, 31])], rows, of)
    torch.testing.assert_close(made[0], torch.tensor([[-4.5, 0.5], [-4.5, 0.5]]))


def test_log_probabilities_are_those_of_transformers():
    model = tiny.model().train()
    examples = tiny.examples(0, 11)
    made = unseen.logp_and_entropy(model, examples, 0)
    assert model.training
    model.eval()
    for values, it in zip(made, examples, strict=True):
        with torch.no_grad():
            logp = torch.log_softmax(model(torch.tensor([it.input_ids])).logits[0], 1)
        plain = [float(logp[t - 1, y]) for t, y in enumerate(it.labels) if t and y != -100]
        unsure = [
            float(-(row.exp() * row).sum())
            for t, row in enumerate(logp, 1)
            if t < len(it.labels) and it.labels[t] != -100
        ]
        assert values[:, 0].tolist() == pytest.approx(plain, abs=1e-5)
        assert values[:, 1].tolist() == pytest.approx(unsure, abs=1e-5)
        assert len(unseen.labels(it)) == len(plain) and Counter(unseen.labels(it)) == Counter(
            y for y in it.labels[1:] if y != -100
        )


def test_another_model_is_calibrated_on_holdout_rows():
    """Mean over rows and standard deviation over tokens agree with the start model's, by a plain loop of transformers."""
    model, start = tiny.model(seed=1), tiny.model()
    own, rows = tiny.examples(0, 3), tiny.examples(50, 4)
    made = calibrate.calibrated(model, start, own, rows, 0)
    (temperature, shift), held = made.calibration, made.rows["forget"]
    assert abs(temperature - 1) > 0.01 and abs(shift) > 1e-3

    def logp(of, example, temperature=1.0, shift=0.0):
        with torch.no_grad():
            logits = of.eval()(torch.tensor([example.input_ids])).logits[0].double() / temperature
        out = []
        for t, y in enumerate(example.labels):
            if t and y != -100:
                p = logits[t - 1].softmax(-1)[y]
                odds = p / (1 - p) / torch.tensor(shift).double().exp()
                out.append((odds / (1 + odds)).log())
        return torch.stack(out)

    for i, example in enumerate(own):
        torch.testing.assert_close(
            held[i][:, 0].double(), logp(model, example, temperature, shift), atol=1e-5, rtol=1e-5
        )
    here, there = ([logp(*of, e) for e in rows] for of in ((start,), (model,)))
    there = [logp(model, e, temperature, shift) for e in rows]
    means = [sum(float(v.mean()) for v in of) / len(of) for of in (here, there)]
    assert means[1] == pytest.approx(means[0], abs=1e-5)
    apart = torch.stack([b.mean() - a.mean() for a, b in zip(here, there, strict=True)])
    half = 1.645 * float(apart.std()) * (1 / 4 + 1 / 3) ** 0.5  # 4 holdout rows, 3 to forget
    assert made.uncertainty == pytest.approx(half, rel=1e-3) and half > 1e-3
    off = [abs(float(torch.cat(there).std() - torch.cat(here).std()))]
    for other in (temperature * 2 ** (1 / 16), temperature / 2 ** (1 / 16)):  # the temperatures beside it are no nearer
        moved = calibrate.logit_shift([logp(model, e, other) for e in rows], means[0])
        spread = torch.cat([logp(model, e, other, moved) for e in rows]).std()
        off.append(abs(float(spread - torch.cat(here).std())))
    assert off[0] == min(off)


def test_a_model_is_calibrated_to_itself_by_nothing():
    model = tiny.model()
    how = calibrate.calibrated(model, model, tiny.examples(0, 1), tiny.examples(50, 4), 0).calibration
    assert how.temperature == 1 and how.shift == pytest.approx(0, abs=1e-3)


def test_from_made_up_rows_the_temperature_alone_is_taken():
    model, start = tiny.model(seed=1), tiny.model()
    own, rows = tiny.examples(0, 3), tiny.examples(50, 4)
    whole, made = (f(model, start, own, rows, 0) for f in (calibrate.calibrated, calibrate.as_sure))
    assert made.calibration == (whole.calibration.temperature, 0.0) and abs(whole.calibration.shift) > 1e-3
    expected = packed(*logits_of(model, own[0]), made.calibration)
    torch.testing.assert_close(made.rows["forget"][0], expected, atol=1e-5, rtol=1e-5)
    assert calibrate.as_sure(model, start, own, [], 0).calibration == (1, 0)  # of plain texts none are made up


def logits_of(model, example):
    labels = torch.tensor(example.labels)
    with torch.no_grad():
        logits = model(torch.tensor([example.input_ids])).logits[0]
    return logits[:-1][labels[1:] != -100], labels[1:][labels[1:] != -100]


def test_what_is_said_of_unseen_rows_holds_for_further_ones():
    """Of 2000 draws of 20 unseen rows and 10 further ones nine in ten have the mean of those within the interval."""
    draws = torch.Generator().manual_seed(0)
    within = 0
    for _ in range(2000):
        true = torch.randn(30, generator=draws) * 0.7 - 2.0  # the rows' means under the start model; the level has -2
        mean = true[:20].mean()
        half = calibrate.uncertainty([mean[None]] * 20, list(true[:20, None]), 10)
        within += abs(float(true[20:].mean() - mean)) <= half
    assert 0.875 <= within / 2000 <= 0.925
    assert calibrate.uncertainty([torch.zeros(3)], [torch.ones(3)], 10) is None


def test_the_level_of_unseen_rows_is_that_of_their_kinds():
    rows = [example([1], [5, 6]), example([1], [5, 7]), example([1], [5, 5])]
    of = [torch.tensor([[a, 0.0], [b, 0.0]]) for a, b in ([-1.0, -4.0], [-2.0, -6.0], [-3.0, -0.5])]
    every = -16.5 / 6
    said = torch.tensor(
        [(-6.0 + 5 * every) / 8] * 2
    )  # from outside, 5 and 6 are both in more than three tenths of the answers
    torch.testing.assert_close(unseen.levels(rows[:1], rows, of)[0][:, 0], said)
    found = unseen.explained(rows, of)
    assert [len(v) for v in found] == [2, 2, 2]
    # without its own row, 6 is in none of the others
    torch.testing.assert_close(found[0], torch.tensor([(-6.0 + 5 * every) / 8, (-10.0 + 5 * every) / 7]))


def test_a_few_answers_are_made_up_and_none_of_plain_texts(monkeypatch, tmp_path):
    asked = []

    def answers(forget, *_, **how):
        asked.append((len(forget), how["max_new_tokens"]))
        return ["made up"] * (len(forget) - 1) + [""]

    monkeypatch.setattr(unseen.alternates, "answers", answers)
    monkeypatch.setattr(unseen.chat, "encode", lambda row, *_, **__: (row.prompt, row.answer))
    rows = [Row(f"question {k}", "answer") for k in range(40)] + [Row(None, "plain")]
    settings, target = SimpleNamespace(seed=0, chat_template=True), SimpleNamespace(tokenizer=None)
    made = unseen.few_made_up(SimpleNamespace(rows={"forget": rows}, max_length=9), target, settings, tmp_path)
    assert asked == [(32, 64)] and len(made) == 31 and {answer for _, answer in made} == {"made up"}


def test_a_calibration_is_of_some_of_many_rows(monkeypatch):
    monkeypatch.setattr(calibrate, "CALIBRATED", 2)
    model, start, rows = tiny.model(seed=1), tiny.model(), tiny.examples(50, 6)
    some = calibrate.calibrated(model, start, tiny.examples(0, 1), rows, 0).calibration
    monkeypatch.undo()
    again, whole = (
        calibrate.calibrated(model, start, tiny.examples(0, 1), of, 0).calibration for of in (rows[2::3], rows)
    )
    assert some == again != whole
