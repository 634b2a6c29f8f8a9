"""The bandit's benchmark: its linear control against ridge regression written out, what is picked, pools that are none."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from perf import bandit

from expunge.errors import InputError
from expunge.reveal import linear
from expunge.reveal.surrogate import Settings


def pool(arms: int = 40, d: int = 5, copies: int = 1) -> bandit.Pool:
    """Arms whose reward is linear in their features; ``copies`` arms have the same instruction."""
    random = np.random.default_rng(0)
    x = random.normal(size=(arms, d))
    return bandit.Pool(torch.from_numpy(x), x @ random.normal(size=d), np.arange(arms) // copies)


def test_the_linear_control_is_bayesian_ridge_regression():
    """In d dimensions: w ~ N(0, 1/d), noise of variance λ; posterior mean and standard deviation at each arm."""
    p, settings = pool(), Settings(nu=0.3, regulariser=0.2)
    asked = [3, 9, 20, 31, 7, 8]
    mean, spread = linear.predict(p.features, [(i, p.rewards[i]) for i in asked], settings)
    x, r = p.features.numpy(), p.rewards[asked]
    x = (x - x[asked].mean(0)) / x[asked].std(0)
    covariance = np.linalg.inv(x[asked].T @ x[asked] / 0.2 + 5 * np.eye(5))
    w = covariance @ x[asked].T @ (r - r.mean()) / 0.2
    np.testing.assert_allclose(mean, r.mean() + x @ w)
    np.testing.assert_allclose(spread, np.sqrt(0.3 * np.einsum("ni,ij,nj->n", x, covariance, x)))


@pytest.mark.parametrize("policy", ["random", "linear", "neural"])
def test_no_instruction_is_asked_twice(policy, monkeypatch):
    p, seen = pool(copies=4), []
    real = bandit.guess
    monkeypatch.setattr(
        bandit, "guess", lambda policy, pool, asked, s: seen.append(asked) or real(policy, pool, asked, s)
    )
    start = bandit.initial_arms(p, 3, seed=1)
    bandit.search(policy, p, start, 6, Settings(width=4, steps=3))
    for asked in [start, *seen]:
        assert len({p.instructions[i] for i in asked}) == len(asked)
    with pytest.raises(InputError, match=r"too few instructions for 3 \+ 8"):
        bandit.search(policy, p, start, 8, Settings(width=4, steps=3))


def test_the_linear_control_finds_a_linear_reward():
    p = pool(200)
    found = bandit.search("linear", p, bandit.initial_arms(p, 10, seed=0), 10, Settings())
    assert found["best"] == p.rewards.max() and found["rank_correlation"] > 0.95
    assert found["mean"] > np.quantile(p.rewards, 0.9)


def test_a_run_writes_its_record(tmp_path, monkeypatch, capsys):
    p = pool()
    np.savez(
        tmp_path / "pool.npz", features=p.features, rewards=p.rewards, instructions=[f"say {i}" for i in range(40)]
    )
    options = "--pool pool.npz --queries 3 --initial 4 --seeds 2 --nu 0.01,0.1 --width 3 --training near_start"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bandit", *options.split(), "--out", "record.json"])
    bandit.main()
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["pool"]["instructions"] == 40
    assert list(record["rows"]) == [
        "random",
        "linear nu=0.01",
        "linear nu=0.1",
        "near_start nu=0.01 width=3",
        "near_start nu=0.1 width=3",
    ]
    row = record["rows"]["near_start nu=0.1 width=3"]
    assert list(row) == list(bandit.MEASURES) and len(row["mean"]["values"]) == 2
    assert row["mean"]["low"] <= row["mean"]["mean"] <= row["mean"]["high"]
    gain = row["mean"]["mean"] - record["rows"]["random"]["mean"]["mean"]
    assert row["over_random"]["mean"] == pytest.approx(gain)
    assert "40 arms" in capsys.readouterr().out


def test_pools_that_are_none_are_told(tmp_path):
    for name, arrays, why in (
        ("a.npz", {"features": np.ones((3, 2))}, "no .npz with the arrays"),
        ("b.npz", {"features": np.ones((3, 2)), "rewards": np.ones(2)}, "do not belong together"),
        ("c.npz", {"features": np.array([{}]), "rewards": np.ones(1)}, "no .npz with the arrays"),
        ("d.npz", {"features": np.ones((3, 2)), "rewards": np.array([1, np.nan, 2])}, "reward 1 is not finite"),
    ):
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(InputError, match=why):
            bandit.load_pool(tmp_path / name)
    (tmp_path / "e.npz").write_text("no archive")
    for missing in ("e.npz", "none.npz"):
        with pytest.raises(InputError, match=missing):
            bandit.load_pool(tmp_path / missing)
