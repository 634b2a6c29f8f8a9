"""Levels of tokens from rows that were never seen, by hand and against a plain loop of transformers."""

from __future__ import annotations

from collections import Counter

import pytest
import tiny
import torch

from expunge.data.example import Example
from expunge.unlearning import unseen


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
    made = unseen.predictions(model, examples, 0)
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
    """The mean that agrees is one over rows, not over tokens; odds of all tokens are divided by one number."""
    model, start = tiny.model(seed=1), tiny.model()
    own, rows = tiny.examples(0, 3), tiny.examples(50, 4)
    made = unseen.calibrated(model, start, own, rows, 0)
    before = unseen.predictions(model, own, 0)
    theirs, here = (unseen.predictions(m, rows, 0) for m in (model, start))

    def odds(logp: list[torch.Tensor]) -> torch.Tensor:
        p = torch.cat([*logp]).double().exp()
        return p / (1 - p)

    factors = odds([v[:, 0] for v in made.values()]) / odds([v[:, 0] for v in before])
    factor = float(factors.mean())
    assert abs(factor - 1) > 1e-3
    torch.testing.assert_close(factors, torch.full_like(factors, factor), rtol=1e-4, atol=0)
    nll = [
        [float((lambda o: o / (1 + o))(odds([v[:, 0]]) * f).log().mean()) for v in of]
        for of, f in ((theirs, factor), (here, 1))
    ]
    assert sum(nll[0]) == pytest.approx(sum(nll[1]), rel=1e-5)
    scale = sum(float(v[:, 1].mean()) for v in here) / sum(float(v[:, 1].mean()) for v in theirs)
    for i, values in enumerate(before):
        torch.testing.assert_close(made[i][:, 1], scale * values[:, 1])
