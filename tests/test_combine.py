"""Combiners by property, on random gradients."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.combine import MGDA, Bilevel, NormalizedDifference, PCGrad, PrimalDual, TorchJD, WeightedSum, complete
from expunge.errors import InputError

seeds = st.integers(0, 10_000)
gammas = st.floats(0, 10)
LOSSES = torch.tensor([1.0, 2.0])


def gradients(seed: int, scale: float = 1.0):
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, 9, generator=g, dtype=torch.float64)


def direction(combine, j):
    return combine.weights(LOSSES.double(), j @ j.T) @ j


@settings(deadline=None, max_examples=50)
@given(seeds, gammas)
def test_bilevel_is_the_papers_direction(seed, gamma):
    f, r = j = gradients(seed)
    u = direction(Bilevel(gamma), j)
    torch.testing.assert_close(
        u, gamma * f + r - (r @ f) / (f @ f) * f
    )  # γ g_f + the retain gradient's orthogonal part
    torch.testing.assert_close(f @ u, gamma * (f @ f))


@settings(deadline=None, max_examples=50)
@given(seeds, gammas, st.floats(1e-3, 1e3))
def test_relative_bilevel_does_not_see_the_forget_scale(seed, gamma, scale):
    f, r = j = gradients(seed)
    u = direction(Bilevel(gamma, relative=True), j)
    torch.testing.assert_close(direction(Bilevel(gamma, relative=True), torch.stack([scale * f, r])), u)
    torch.testing.assert_close(f @ u, gamma * r.norm() * f.norm())


@settings(deadline=None, max_examples=50)
@given(seeds, gammas)
def test_one_sided_descends_forget_at_least_as_fast(seed, gamma):
    f, r = j = gradients(seed)
    u = direction(Bilevel(gamma, one_sided=True), j)
    assert f @ u >= gamma * (f @ f) - 1e-9
    if (f @ r) / (f @ f) >= gamma:  # already satisfied: the retain gradient is left alone
        torch.testing.assert_close(u, r)


@pytest.mark.parametrize("combine", [Bilevel(0.7), Bilevel(0.7, relative=True), Bilevel(0.7, one_sided=True)])
def test_zero_gradients_are_finite(combine):
    f, r = gradients(3)
    zero = torch.zeros_like(f)
    torch.testing.assert_close(direction(combine, torch.stack([zero, r])), r)
    assert direction(combine, torch.stack([f, zero])).isfinite().all()
    assert (direction(combine, torch.stack([zero, zero])) == 0).all()


# -- PCGrad, MGDA, the normalised difference, TorchJD -----------------------------------------------------------------------
BY_HAND = [
    (PCGrad(), [[1.0, 0], [-1, 1]], [2.0, 1.5], [0.5, 1.5]),
    (PCGrad(), [[1.0, 0], [1, 1]], [1.0, 1.0], [2.0, 1.0]),  # no conflict
    (MGDA(), [[2.0, 0], [0, 1]], [0.2, 0.8], [0.4, 0.8]),
    (MGDA(), [[1.0, 0], [3, 1]], [1.0, 0.0], [1.0, 0.0]),  # the shortest is an end
    (MGDA(), [[1.0, 2], [1, 2]], [0.5, 0.5], [1.0, 2.0]),
    (NormalizedDifference(), [[3.0, 4], [0, 2]], [0.2, 0.5], [0.6, 1.8]),
]


@pytest.mark.parametrize(("combine", "j", "weights", "step"), BY_HAND)
def test_combined_by_hand(combine, j, weights, step):
    j = torch.tensor(j, dtype=torch.float64)
    torch.testing.assert_close(combine.weights(LOSSES, j @ j.T), torch.tensor(weights, dtype=torch.float64))
    torch.testing.assert_close(direction(combine, j), torch.tensor(step, dtype=torch.float64))


SYMMETRIC = pytest.mark.parametrize("combine", [PCGrad(), MGDA(), NormalizedDifference()], ids=repr)


@SYMMETRIC
@settings(deadline=None, max_examples=50)
@given(seeds, st.floats(1e-3, 1e3))
def test_order_and_scale(combine, seed, scale):
    """Exchanging the objectives changes nothing; a common scale gives the step that scale, or none at unit length."""
    j = gradients(seed)
    u = direction(combine, j)
    torch.testing.assert_close(direction(combine, j.flip(0)), u)
    power = 0 if isinstance(combine, NormalizedDifference) else 1
    torch.testing.assert_close(direction(combine, scale * j), scale**power * u)


@SYMMETRIC
def test_zero_gradients_leave_the_other_or_nothing(combine):
    f, r = gradients(3)
    zero = torch.zeros_like(f)
    for j in (torch.stack([zero, r]), torch.stack([f, zero]), torch.stack([zero, zero])):
        u = direction(combine, j)
        expected = torch.zeros_like(f) if isinstance(combine, MGDA) else combine_alone(combine, j.sum(0))
        torch.testing.assert_close(u, expected)


def combine_alone(combine, g):
    return g / g.norm().clamp(min=1e-9) if isinstance(combine, NormalizedDifference) else g


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_pcgrad_is_the_loop_over_vectors(seed):
    first = gradients(seed)
    total = torch.zeros(9, dtype=torch.float64)
    for i in range(2):
        g = first[i].clone()
        if g @ first[1 - i] < 0:
            g -= (g @ first[1 - i]) / (first[1 - i] @ first[1 - i]) * first[1 - i]
        total += g
    torch.testing.assert_close(direction(PCGrad(), first), total)


@settings(deadline=None, max_examples=50)
@given(seeds, st.floats(1e-2, 1e2))
def test_mgda_is_the_shortest_and_descends_both(seed, scale):
    j = gradients(seed) * torch.tensor([[scale], [1.0]])
    w = MGDA().weights(LOSSES, j @ j.T)
    u = w @ j
    assert (w >= 0).all() and w.sum() == pytest.approx(1.0)
    assert (j @ u >= u @ u * (1 - 1e-9) - 1e-12).all()
    for a in torch.linspace(0, 1, 41, dtype=torch.float64):
        assert u.norm() <= (a * j[0] + (1 - a) * j[1]).norm() + 1e-12


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_the_normalised_difference_descends_both(seed):
    j = gradients(seed)
    u = direction(NormalizedDifference(), j)
    assert (j @ u >= -1e-12).all()


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_ours_are_torchjds(seed):
    aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
    j = gradients(seed)
    torch.testing.assert_close(direction(PCGrad(), j), direction(TorchJD(aggregation.PCGradWeighting()), j))
    fine = TorchJD(aggregation.MGDAWeighting(epsilon=1e-12, max_iters=10_000))
    torch.testing.assert_close(direction(MGDA(), j), direction(fine, j), atol=1e-3, rtol=1e-3)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_a_weighting_of_torchjd_gives_its_aggregators_step(seed):
    aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
    j = gradients(seed)
    combine = TorchJD(aggregation.UPGradWeighting())
    torch.testing.assert_close(direction(combine, j), aggregation.UPGrad()(j))
    assert repr(combine) == "TorchJD(UPGradWeighting)" and combine.needs_gram


@pytest.mark.parametrize("combine", [PCGrad(), MGDA()])
def test_two_objectives_only(combine):
    with pytest.raises(ValueError, match="for two objectives, not 3"):
        combine.weights(torch.ones(3), torch.eye(3))


def test_tiny_forget_gradient_keeps_the_step_bounded():
    f, r = gradients(3)
    u = direction(Bilevel(1.0), torch.stack([1e-12 * f, r]))
    assert u.norm() <= r.norm() * 1.001


def test_weighted_sum_with_one_objective():
    assert WeightedSum(2.0, 3.0).weights(torch.zeros(1)).tolist() == [2.0]
    assert WeightedSum(2.0, 3.0).weights(torch.zeros(2)).tolist() == [2.0, 3.0]


def settled(**kw) -> PrimalDual:
    return PrimalDual(**({"budget": 1.0, "step_size": 2.0, "multiplier": 10.0, "warmup": 0.5} | kw)).settle(
        4, lambda _: 0.5
    )


def test_a_multiplier_has_a_floor():
    low = settled(warmup=0.0, multiplier=1.5, min_multiplier=1.0)
    low.step(torch.tensor([0.0, 0.5]))  # 1.5 + 2 (0.5 - 1) = 0.5
    assert low.weights(torch.zeros(2)).tolist() == [1.0, 1.0]


def test_with_a_share_to_keep_the_multiplier_moves_by_its_step_at_most():
    """In units of log(1 / 0.5) = ln 2 nats; the running mean goes a fifth of the way: to 6 ln 2, 5 over the budget, which
    counts 1, to ln 2 / 2, which counts -1/2, and to far below.
    """
    c = PrimalDual(keep=0.5, warmup=0.0, multiplier=3.0, step_size=0.4).settle(10, lambda _: 0.0)
    for loss, multiplier in ((30 * math.log(2), 3.4), (-21.5 * math.log(2), 3.2), (-90.0, 2.8)):
        c.step(torch.tensor([0.0, loss]))
        assert c.weights(torch.zeros(2))[1].item() == pytest.approx(multiplier)


def test_a_running_mean_goes_on_where_a_checkpoint_left_it():
    def made():
        return PrimalDual(keep=0.5, warmup=0.0, multiplier=3.0).settle(10, lambda _: 0.2)

    whole, first, second = made(), made(), made()
    for loss in (1.0, 2.0, 0.5):
        whole.step(torch.tensor([0.0, loss]))
    first.step(torch.tensor([0.0, 1.0]))
    second.load_state_dict(first.state_dict())
    for loss in (2.0, 0.5):
        second.step(torch.tensor([0.0, loss]))
    assert second.state_dict() == whole.state_dict() and whole.state_dict()["mean"] == pytest.approx(0.6504)


def test_below_one_it_is_the_weight_of_forgetting_that_moves():
    """Forget : retain goes 1 : 1.4, 1.6 : 1, 2.6 : 1, and back by as much: 1.6 : 1."""
    c = PrimalDual(keep=0.5, warmup=0.0, multiplier=1.4, step_size=1.0).settle(10, lambda _: 0.0)
    for loss, multiplier in ((-9.0, 1 / 1.6), (-9.0, 1 / 2.6), (900.0, 1 / 1.6), (9.0, 1.4)):
        c.step(torch.tensor([0.0, loss]))
        assert c.weights(torch.zeros(2))[1].item() == pytest.approx(multiplier)


def test_a_budget_from_the_share_of_probability_that_is_to_be_kept():
    """exp(-loss) may fall by 5 %: from 0.2 nats to 0.2513."""
    settled = PrimalDual(keep=0.95).settle(10, lambda k: {1: 0.2}[k])
    assert math.exp(-settled.budget) == pytest.approx(0.95 * math.exp(-0.2))
    assert PrimalDual(keep=0.95).settle(10, lambda _: 0.0).budget == pytest.approx(0.0513, abs=1e-4)  # of a divergence
    assert PrimalDual(budget=3.0, keep=0.95).settle(10, lambda _: 0.2).budget == 3.0


def test_multiplier_by_hand():
    c = settled()  # two steps of warm-up, then λ += 2 (L - 1)
    path = []
    for loss in (3.0, 3.0, 3.0, 0.5, 0.0):
        c.step(torch.tensor([0.0, loss]))
        path.append(float(c.weights(LOSSES)[1]))
    assert path == [10.0, 10.0, 14.0, 13.0, 11.0]
    assert c.weights(LOSSES)[0] == 1.0


def test_multiplier_stays_between_zero_and_its_cap():
    low, high = settled(warmup=0.0), settled(warmup=0.0, max_multiplier=12.0)
    for _ in range(20):
        low.step(torch.tensor([0.0, 0.0]))
        high.step(torch.tensor([0.0, 5.0]))
    assert float(low.weights(LOSSES)[1]) == 0.0 and float(high.weights(LOSSES)[1]) == 12.0


def test_budget_from_the_start_loss():
    assert PrimalDual(tolerance=0.25).settle(10, lambda _: 0.8).budget == pytest.approx(1.0)
    assert PrimalDual(budget=0.3).settle(10, lambda _: 0.8).budget == 0.3
    assert PrimalDual(warmup=0.3).settle(10, lambda _: 1.0).warmup_steps == 3
    assert PrimalDual(warmup_steps=7).settle(10, lambda _: 1.0).warmup_steps == 7


def test_no_budget_follows_from_a_start_loss_of_zero():
    with pytest.raises(InputError, match="give budget="):
        PrimalDual().settle(10, lambda _: 0.0)
    assert PrimalDual(budget=0.1).settle(10, lambda _: 0.0).budget == 0.1
    assert PrimalDual().needs_start and not PrimalDual(budget=0.1).needs_start


def test_the_budget_is_on_the_second_loss():
    asked = []
    PrimalDual().settle(10, lambda k: asked.append(k) or 1.0)
    assert asked == [1]


def test_a_multiplier_at_zero_is_warned_of_once_after_ten_logged_steps():
    c = settled()
    assert c.watch({}) is None and "infeasible" in settled(budget=0.4).watch({})
    said = [c.watch({"multiplier": v}) for v in (0.0, 1.0, *[0.0] * 20)]
    assert [i for i, sentence in enumerate(said) if sentence] == [11]


class Plain:
    """The least that a combiner of a user's own can be."""

    needs_gram = False

    def weights(self, losses, gram):
        return losses.new_ones(len(losses))


@pytest.mark.parametrize("given", [Plain(), WeightedSum(), Bilevel(), dataclass(frozen=True)(Plain)()])
def test_what_a_combiner_does_not_say_is_filled_in(given):
    c = complete(given)
    assert c.settle(3, lambda _: 1.0) is c and c.step(LOSSES) is None
    assert (c.facts(), c.watch({}), c.state_dict(), c.needs_start) == ({}, None, {}, False)
    with pytest.raises(InputError, match=r"weights\(losses, gram\), and 3 has none"):
        complete(3)


def test_an_unsettled_multiplier_cannot_step():
    with pytest.raises(RuntimeError, match="settled first"):
        PrimalDual().step(LOSSES)


def test_state_round_trip():
    a = settled(warmup=0.0)
    a.step(torch.tensor([0.0, 2.0]))
    b = PrimalDual(step_size=2.0)
    b.load_state_dict(a.state_dict())
    for c in (a, b):
        c.step(torch.tensor([0.0, 2.0]))
    assert a.state_dict() == b.state_dict() and float(b.weights(LOSSES)[1]) == 14.0
    assert Bilevel().state_dict() == {}
    assert copy.deepcopy(a).state_dict() == a.state_dict()
