"""The bandit's bound against autograd, its training against a hand-written loop, its choices by hand and against chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from expunge.errors import InputError
from expunge.reveal import bandit, linear, surrogate
from expunge.reveal.surrogate import Network, Settings, Surrogate

QUICK = Settings(width=7, steps=5, seed=3)


def smooth(arms: int = 300, d: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A pool of arms: features a curved, noisy image of four hidden numbers, the reward a smooth bump over them."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.rand(arms, 4, generator=random)
    image = torch.tanh(hidden @ torch.randn(4, d, generator=random)) + 0.1 * torch.randn(arms, d, generator=random)
    rewards = torch.exp(-2 * (hidden - 0.7).square().sum(1))
    return image, rewards / rewards.max()


def drawn(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(d: int, settings: Settings = QUICK) -> Network:
    """The initial network in fp64, with biases that are not zero."""
    initial = surrogate.initial(d, settings)
    random = torch.Generator().manual_seed(9)
    bias = torch.randn(settings.width, generator=random)
    return Network(*(p.double() for p in initial._replace(hidden_bias=bias, output_bias=torch.tensor(0.3))))


def squared_gradient(net: Network, row: torch.Tensor) -> torch.Tensor:
    """Every parameter's squared derivative of f(row), by autograd, in one vector."""
    leaves = Network(*(p.clone().requires_grad_() for p in net))
    value = (torch.relu(leaves.hidden @ row + leaves.hidden_bias) * leaves.output).sum() + leaves.output_bias
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(leaves))]).square()


def test_bound_equals_per_sample_gradients():
    net, x, observed = network(5), drawn(20, 5), drawn(6, 5, seed=1)
    u = 0.1 + sum(squared_gradient(net, row) for row in observed)
    expected = torch.stack([(0.1 * 0.0001 * (squared_gradient(net, row) / u).sum()).sqrt() for row in x])
    torch.testing.assert_close(bandit.spread(net, x, observed, QUICK), expected, rtol=1e-5, atol=0)
    off = (x @ net.hidden.T + net.hidden_bias <= 0).double().mean()
    assert 0.2 < off < 0.8  # the ReLU's mask is in play


def test_bound_by_hand():
    """The docstring's: g = (2, 2, 1, 1) at 1, (6, 2, 3, 1) at 3, only the output bias's at -3."""
    net = Network(*(torch.tensor(p, dtype=torch.float64) for p in ([[1.0]], [0.0], [2.0], 0.0)))
    x, observed, settings = (
        torch.tensor([[3.0], [-3.0]]).double(),
        torch.tensor([[1.0]]).double(),
        Settings(1, 1.0, 1.0),
    )
    assert bandit.spread(net, x, observed, settings).tolist() == pytest.approx([math.sqrt(13), math.sqrt(0.5)])
    quarter = bandit.spread(net, x, observed, replace(settings, nu=0.25))
    assert quarter.tolist() == pytest.approx([math.sqrt(13) / 2, math.sqrt(0.5) / 2])


def test_bound_shrinks_at_observed_arms_and_with_more_of_them():
    net, x = network(5), drawn(9, 5)
    few, more = bandit.spread(net, x, x[:2], QUICK), bandit.spread(net, x, x[:5], QUICK)
    assert (more < few).all()


def test_initial_variances():
    d, settings = 400, Settings(width=500, seed=1)
    net = surrogate.initial(d, settings)
    assert float(net.hidden.var()) * d == pytest.approx(2, rel=0.03)  # 200 000 draws
    assert float(net.output.var()) * settings.width == pytest.approx(1, rel=0.25)  # 500 draws
    assert abs(float(net.hidden.mean())) < 1e-3
    assert not net.hidden_bias.any() and not net.output_bias.any()
    assert (surrogate.initial(d, settings).hidden == net.hidden).all()
    assert (surrogate.initial(d, replace(settings, seed=2)).hidden != net.hidden).any()


def test_untrained_values_are_of_order_one():
    x = drawn(200, 576)
    assert 0.5 < float(surrogate.initial(576, Settings())(x.float()).std()) < 2


def test_published_training_equals_a_hand_written_loop():
    x, rewards, settings = drawn(12, 5), drawn(12, 1)[:, 0], Settings(width=7, regulariser=2.0, steps=50)
    start = surrogate.initial(5, settings)
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 1))
    with torch.no_grad():
        for p, value in zip(module.parameters(), start, strict=True):
            p.copy_(value.reshape(p.shape))
    adam = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=2.0 / 12)
    for _ in range(50):
        adam.zero_grad()
        nn.functional.mse_loss(module(x.float())[:, 0], rewards.float()).backward()
        adam.step()
    with torch.no_grad():  # a caller's no_grad does not stop the training
        fitted = surrogate.published(x, rewards, settings).network
    for p, value in zip(module.parameters(), fitted, strict=True):
        torch.testing.assert_close(value, p.detach().reshape(value.shape), rtol=1e-4, atol=1e-5)
    assert (fitted.hidden - start.hidden).abs().max() > 0.01 and not fitted.hidden.requires_grad


def test_training_near_the_start_minimises_its_objective():
    """Plain gradient descent with autograd in fp64, on the formula written out, ends where L-BFGS does.

    λ is so large that there is one minimum near the start.
    """
    x, rewards, settings = drawn(12, 5), 5 + drawn(12, 1)[:, 0] / 4, Settings(width=7, regulariser=6.0, steps=200)
    start = [p.double() for p in surrogate.initial(5, settings)]
    at = [p.clone().requires_grad_() for p in start]

    def f(w1, b1, w2, b2):
        return torch.clamp(x @ w1.T + b1, min=0) @ w2 + b2

    def objective(parameters):
        errors = rewards.mean() + f(*parameters) - f(*start) - rewards
        distance = sum(((p - q) ** 2).sum() for p, q in zip(parameters, start, strict=True))
        return (errors**2).sum() / 12 + 6.0 / (2 * 12) * distance

    for _ in range(600):
        gradients = torch.autograd.grad(objective(at), at)
        with torch.no_grad():
            for p, g in zip(at, gradients, strict=True):
                p -= 0.02 * g
    with torch.no_grad():
        fitted = surrogate.near_start(x, rewards, settings).double()
        assert float(objective(fitted.network)) == pytest.approx(float(objective(at)), rel=1e-4)
        for ours, theirs in zip(fitted.network, at, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        torch.testing.assert_close(fitted(x), rewards.mean() + f(*at) - f(*start), rtol=0, atol=1e-4)
        assert max((p - q).abs().max() for p, q in zip(at, start, strict=True)) > 0.02
        assert float(objective(fitted.network)) < 0.8 * float(objective(start))


def test_far_from_what_was_observed_the_guess_is_the_mean_reward():
    """Arms at right angles to the observed ones: nothing is known, and no random function is left in the guess."""
    x, rewards = torch.eye(40, dtype=torch.float64), torch.linspace(0, 1, 8, dtype=torch.float64)
    for seed in range(3):
        fitted = surrogate.near_start(x[:8] * 3, rewards, Settings(seed=seed))
        assert fitted.network.hidden[:, 8:].equal(fitted.start.hidden[:, 8:])
        assert (fitted(x[8:].float()) - 0.5).abs().max() < 0.15


def test_settings_choose_the_training():
    x, rewards = drawn(6, 3), drawn(6, 1)[:, 0]
    for name, training in surrogate.TRAININGS.items():
        settings = replace(QUICK, training=name)
        assert surrogate.fit(x, rewards, settings).network.hidden.equal(training(x, rewards, settings).network.hidden)
    with pytest.raises(InputError, match="near_start, published, not 'sgd'"):
        Settings(training="sgd")


def test_standardise_by_hand():
    """Mean and deviation are those of the rows seen; what differs in the 9th digit is only shifted."""
    reference = torch.tensor([[1.0, 0.1], [3.0, 0.1 + 1e-9], [5.0, 0.1 - 1e-9]], dtype=torch.float64)
    standardised = surrogate.standardise(torch.tensor([[3.0, 0.1], [7.0, 2.1]], dtype=torch.float64), reference)
    torch.testing.assert_close(
        standardised, torch.tensor([[0.0, 0.0], [4 / math.sqrt(8 / 3), 2.0]], dtype=torch.float64)
    )


def test_scale_and_shift_of_a_feature_change_nothing():
    features, rewards = smooth(30, 6)
    observed = [(i, float(rewards[i])) for i in range(8)]
    moved = features.double() * torch.logspace(-3, 3, 6) + 5
    for ours, theirs in zip(
        bandit.predict(features, observed, QUICK), bandit.predict(moved, observed, QUICK), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_choice_by_hand(monkeypatch):
    """f(x) = x after standardising, and no spread: the largest feature that is allowed wins, the first of equals."""
    identity = Network(*(torch.tensor(p) for p in ([[1.0], [-1.0]], [0.0, 0.0], [1.0, -1.0], 0.0)))
    monkeypatch.setattr(bandit, "fit", lambda *_: Surrogate(identity))
    features, observed = torch.tensor([[0.0], [4.0], [9.0], [4.0], [2.0]]), [(0, 0.0), (4, 1.0)]
    settings = Settings(nu=0.0)
    mean, spread = bandit.predict(features, observed, settings)
    assert mean.tolist() == [-1.0, 3.0, 8.0, 3.0, 1.0] and spread.tolist() == [0.0] * 5
    assert bandit.choose(features, observed, [True] * 5, settings) == 2
    assert bandit.choose(features, observed, [True, True, False, True, True], settings) == 1
    assert bandit.choose(features, observed, [True, False, False, True, True], settings) == 3
    assert bandit.choose(features, observed, np.array([True, False, False, False, True]), settings) == 4


def test_a_large_nu_chooses_what_is_least_known(monkeypatch):
    identity = Network(*(torch.tensor(p) for p in ([[1.0], [-1.0]], [0.0, 0.0], [1.0, -1.0], 0.0)))
    monkeypatch.setattr(bandit, "fit", lambda *_: Surrogate(identity))
    features, observed = torch.tensor([[0.0], [4.0], [-30.0], [2.0]]), [(0, 0.0), (3, 1.0)]
    allowed = [False, True, True, False]
    assert bandit.choose(features, observed, allowed, Settings(nu=0.0)) == 1
    assert bandit.choose(features, observed, allowed, Settings(nu=1e4)) == 2


def test_predictions_of_some_rows_are_those_of_all():
    features, rewards = smooth(30, 6)
    observed = [(i, float(rewards[i])) for i in range(8)]
    rows = torch.tensor([20, 3, 11])
    whole, part = bandit.predict(features, observed, QUICK), bandit.predict(features, observed, QUICK, rows=rows)
    for ours, theirs in zip(part, whole, strict=True):
        torch.testing.assert_close(ours, theirs[rows])
    assert ours.dtype == torch.float64


def search(features, rewards, start, picks, settings) -> list[int]:
    """The arms asked, the first ones and those that the bandit picked, each at most once."""
    arms = list(start)
    for _ in range(picks):
        allowed = torch.ones(len(features), dtype=torch.bool)
        allowed[arms] = False
        arms.append(bandit.choose(features, [(i, float(rewards[i])) for i in arms], allowed, settings))
    return arms


def test_an_interrupted_search_goes_on_with_the_same_choices():
    features, rewards = smooth(60, 8)
    torch.manual_seed(1)
    whole = search(features, rewards, range(5), 6, QUICK)
    torch.manual_seed(2)  # the global generator is not in it
    assert search(features, rewards, whole[:8], 3, QUICK) == whole
    assert len(set(whole)) == 11


def test_bandit_beats_chance_on_a_smooth_reward():
    """Chance gets the pool's mean."""
    settings, gains = Settings(width=50), []
    for seed in range(3):
        features, rewards = smooth(seed=seed)
        picked = search(features, rewards, range(15), 12, replace(settings, seed=seed))[15:]
        gains.append(float(rewards[picked].mean() - rewards.mean()))
    assert min(gains) > 0.1 and sum(gains) / 3 > 0.15, gains


def test_predictions_rank_the_arms_never_asked():
    features, rewards = smooth()
    mean, _ = bandit.predict(features, [(i, float(rewards[i])) for i in range(60)], Settings(width=50))
    ranks = [v[60:].argsort().argsort().double() for v in (mean, rewards)]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.5


GOOD = torch.eye(3)


@pytest.mark.parametrize(
    ("features", "observed", "allowed", "message"),
    [
        (GOOD, [], [True] * 3, "nothing is observed"),
        (GOOD, [(3, 1.0)], [True] * 3, "observed arm 3: there are 3 arms"),
        (GOOD, [(-1, 1.0)], [True] * 3, "observed arm -1"),
        (GOOD, [(1, float("nan"))], [True] * 3, "observed arm 1: its reward is nan"),
        (GOOD, [(1, 1.0)], [False] * 3, "no arm is allowed"),
        (GOOD, [(1, 1.0)], [True] * 2, "give 3 times True or False"),
        (GOOD, [(1, 1.0)], [0, 1, 2], "give 3 times True or False"),
        (torch.tensor([[1.0], [math.inf]]), [(0, 1.0)], [True] * 2, "those of arm 1 are not all finite"),
        (torch.ones(3), [(0, 1.0)], [True] * 3, "not the shape"),
        (torch.ones(3, 0), [(0, 1.0)], [True] * 3, "not the shape"),
    ],
)
def test_bad_input_is_told(features, observed, allowed, message):
    with pytest.raises(InputError, match=message):
        bandit.choose(features, observed, allowed, QUICK)


@pytest.mark.parametrize(
    "bad", [{"width": 0}, {"steps": 0}, {"nu": -1.0}, {"nu": math.nan}, {"regulariser": 0.0}, {"regulariser": math.inf}]
)
def test_bad_settings_are_told(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Settings(**bad)


def test_one_observation_is_enough():
    assert bandit.choose(GOOD, [(0, 0.5)], [False, True, True], QUICK) in (1, 2)


def test_the_linear_guess_by_hand_and_as_a_chooser():
    arms, observed = torch.tensor([[1.0], [-1.0], [3.0]]), [(0, 1.0), (1, 0.0)]
    settings = Settings(regulariser=1.0, nu=1.0)
    mean, spread = linear.predict(arms, observed, settings)
    torch.testing.assert_close(mean, torch.tensor([1 / 2 + 1 / 3, 1 / 2 - 1 / 3, 3 / 2], dtype=torch.float64))
    torch.testing.assert_close(spread, torch.tensor([1 / 3, 1 / 3, 3.0], dtype=torch.float64).sqrt())
    subset = linear.predict(arms, observed, settings, rows=torch.tensor([2]))
    assert torch.equal(subset[0], mean[2:]) and torch.equal(subset[1], spread[2:])
    assert bandit.choose(arms, observed, [True, True, True], settings, predictor=linear.predict) == 2
    assert bandit.choose(arms, observed, [True, True, False], settings, predictor=linear.predict) == 0
    with pytest.raises(InputError, match="nothing is observed"):
        linear.predict(arms, [], settings)
