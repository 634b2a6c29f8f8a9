"""A linear probe finds a direction that tells right from wrong, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_attacks as toy

from expunge.attacks import probe
from expunge.errors import InputError


def differences(n: int, signal: float, seed: int):
    """(2, n, 3, 16) of which the second layer points along the first axis."""
    x = np.random.default_rng(seed).normal(size=(2, n, 3, 16))
    x[1, :, :, 0] += signal
    return x


def test_the_probe_ranks_rows_that_it_was_not_fitted_on():
    train, test = differences(20, 3.0, 0), differences(200, 3.0, 1)
    assert probe.best_layer(train) == 1
    assert probe.ranked(test[1], probe.direction(train[1])).mean() > 0.9
    assert abs(probe.ranked(test[0], probe.direction(train[0])).mean() - 0.5) < 0.1


def test_the_direction_is_ridge_regression():
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    flat = x.reshape(-1, 3)
    ridge = probe.RIDGE * (flat**2).sum() / len(flat)
    want = np.linalg.solve(flat.T @ flat + ridge * np.eye(3), flat.T @ np.ones(len(flat)))
    assert probe.direction(x) == pytest.approx(want)


def test_ties_count_half():
    assert probe.ranked(np.array([[[1.0], [0.0], [-1.0], [2.0]]]), np.array([1.0])).tolist() == [0.625]


def test_a_model_and_its_rows():
    taught, control = toy.toys().taught, toy.toys().control
    before = toy.bits(taught)
    points = probe.linear_probe(toy.subject(taught), None)
    assert [p.strength for p in points] == [0, 1] and points[0].known.tolist() == [1.0] * 4
    assert toy.same_bits(taught, before)
    assert probe.linear_probe(toy.subject(control), None)[0].known.mean() < 0.9
    with pytest.raises(InputError, match="two known rows"):
        probe.linear_probe(toy.Subject(taught, toy.TOKENIZER, toy.FORGET[:2], toy.KNOWN[:1]), None)


def test_states_are_those_after_the_answer():
    import torch

    from expunge.data.chat import encode

    model = toy.toys().taught
    wrong = [["Lim", "Tar", "Ven"]]
    _, found = probe.ranks_and_differences(toy.subject(model), toy.ROWS[:1], wrong)
    assert found.shape == (2, 1, 3, 32)
    ends = []
    for text in (toy.ROWS[0].answer, "Lim"):
        ids = encode(toy.ROWS[0], toy.TOKENIZER, answer=text).input_ids[:-1]  # without the end token
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        ends.append([s[0, -1].double().numpy() for s in states[1:]])
    for layer in range(2):
        assert found[layer, 0, 0] == pytest.approx(ends[0][layer] - ends[1][layer], abs=1e-4)
