"""Attacks without training undo masks that are as thin as they can remove, and leave control and model as they were."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_attacks as toy
import torch
from scipy.stats import norm

from expunge.attacks import weights
from expunge.attacks.registry import ATTACKS, missing
from expunge.attacks.restore import matrices, replaced
from expunge.errors import InputError

MEASURE = toy.known_of(toy.FORGET)


def on_grid(change):
    """The taught model after ``change`` of its matrices: it still knows the rows."""
    model = copy.deepcopy(toy.toys().taught)
    replaced(matrices(model), change)
    assert MEASURE(model).mean() > 0.9
    return model


def untouched(points) -> bool:
    """Whether a control knows no more than by chance, at every point."""
    return all(p.known.mean() < 0.3 for p in points)


def test_rounding_to_4_bits_undoes_a_mask_that_is_thinner_than_its_steps():
    model = on_grid(lambda _, w: weights.nf4(w))
    gap = 0.0796 / 2 * 0.9  # less than half the narrowest step
    room = {}
    for name, p in matrices(model).items():
        blocks = p.detach().flatten().view(-1, weights.BLOCK)
        largest = blocks.abs().amax(1, keepdim=True)
        room[name] = torch.where(blocks.abs() < largest, gap * largest, 0.0).view_as(p)
    hidden = toy.masked(model, room)
    assert MEASURE(hidden).mean() < 0.5
    before = toy.bits(hidden)
    points = weights.quantise(toy.subject(hidden), MEASURE)
    assert [p.label for p in points] == ["int8", "NF4"] and [p.strength for p in points] == [1 / 8, 1 / 4]
    assert points[1].known.tolist() == MEASURE(model).tolist() and toy.same_bits(hidden, before)
    assert untouched(weights.quantise(toy.subject(toy.toys().control), MEASURE))


def test_pruning_undoes_a_mask_of_small_weights():
    model = on_grid(lambda _, w: weights.pruned(w, 0.3))
    room = {}
    for name, p in matrices(model).items():
        zero = p.detach() == 0
        room[name] = torch.where(zero, 0.99 * p.detach()[~zero].abs().min(), torch.tensor(0.0))
    hidden = toy.masked(model, room)
    assert MEASURE(hidden).mean() < 0.7
    before = toy.bits(hidden)
    points = weights.prune(toy.subject(hidden), MEASURE, shares=(0.1, 0.3))
    assert points[1].known.tolist() == MEASURE(model).tolist()
    assert toy.same_bits(hidden, before)
    assert untouched(weights.prune(toy.subject(toy.toys().control), MEASURE))


def test_merging_brings_the_target_back_by_degrees():
    target = toy.toys().taught
    gone = copy.deepcopy(toy.gone())
    assert MEASURE(gone).mean() < 0.3 and MEASURE(target).mean() == 1
    gone.requires_grad_(False)
    before = toy.bits(gone)
    points = weights.merge(toy.subject(gone, target=target), MEASURE, weights=(0.0, 0.5, 1.0))
    assert points[0].known.tolist() == MEASURE(gone).tolist() and points[2].known.tolist() == MEASURE(target).tolist()
    assert points[1].known.mean() > points[0].known.mean()
    assert toy.same_bits(gone, before) and not any(p.requires_grad for p in gone.parameters())
    with pytest.raises(InputError, match="cannot be merged"):
        weights.merge(toy.subject(gone, target=torch.nn.Linear(2, 2)), MEASURE)


def test_rounding_of_one_matrix_against_a_plain_loop():
    torch.manual_seed(0)
    w = torch.randn(3, 50)
    w[1] = 0
    for row, got in zip(w.tolist(), weights.int8(w).tolist(), strict=True):
        s = max(map(abs, row)) / 127
        assert got == pytest.approx([round(x / s) * s if s else 0.0 for x in row], abs=1e-6)
    flat, want = w.flatten().tolist(), []
    for i in range(0, len(flat), 64):
        block = flat[i : i + 64]
        s = max(map(abs, block))
        want += [min(weights.NF4, key=lambda level, x=x, s=s: abs(level * s - x)) * s for x in block]
    assert weights.nf4(w).flatten().tolist() == pytest.approx(want, abs=1e-6)
    assert torch.equal(weights.nf4(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_the_levels_of_nf4_are_quantiles_of_the_normal_distribution():
    offset = (1 - 1 / 32 + 1 - 1 / 30) / 2
    positive = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    want = np.sort(np.concatenate([positive, [0], negative]))
    assert pytest.approx(list(want / want.max()), abs=1e-6) == weights.NF4


def test_pruning_takes_exactly_the_share_also_among_equals():
    w = torch.ones(4, 5)
    assert int((weights.pruned(w, 0.35) == 0).sum()) == 7
    assert torch.equal(weights.pruned(w, 0.0), w)


def test_a_failing_measure_leaves_the_model_as_it_was():
    model = copy.deepcopy(toy.toys().taught)
    before = toy.bits(model)

    def fail(_):
        raise KeyboardInterrupt

    for run in (weights.prune, weights.quantise):
        with pytest.raises(KeyboardInterrupt):
            run(toy.subject(model), fail)
    assert toy.same_bits(model, before)


def test_what_an_attack_lacks_is_named():
    model = toy.toys().taught
    assert missing(ATTACKS["merging"], toy.subject(model)) == ["target"]
    assert missing(ATTACKS["merging"], toy.subject(model, target=model)) == []
    assert missing(ATTACKS["pruning"], toy.subject(model)) == []
