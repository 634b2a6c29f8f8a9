"""DDP on two CPU processes takes the steps of one process: one launch trains a row of every method."""

from __future__ import annotations

import pytest
import torch
from ddp_worker import FIRST_ORDER, SOPHIA, left_by
from launch import launched


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """What each of two processes left, by row; a row that was not reached fails with what the launch said."""
    folder = launched(tmp_path_factory)

    def of(name):
        files = [folder / f"{name}.{rank}.pt" for rank in range(2)]
        assert all(file.exists() for file in files), (folder / "said").read_text()
        return [torch.load(file, weights_only=True) for file in files]

    return of


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_two_processes_equal_one(name, ranks):
    first, second = (rank["moved"] for rank in ranks(name))
    assert torch.equal(first, second)
    one = left_by(FIRST_ORDER[name], gradient_accumulation_steps=2)["moved"]
    torch.testing.assert_close(first, one, atol=2e-5, rtol=2e-3)
    assert one.norm() > 1e-4


@pytest.mark.parametrize("name", SOPHIA)
def test_two_processes_estimate_the_curvature_of_one(name, ranks):
    """Momentum and curvature are compared before the clip, where no coordinate hangs on the sign of a rounded zero."""
    first, second = ranks(name)
    for key in first:
        assert torch.equal(first[key], second[key]), key
    one = left_by(SOPHIA[name], gradient_accumulation_steps=2)
    for key in ("momentum", "curvature"):
        off, size = (first[key] - one[key]).norm(), one[key].norm()
        assert off < 0.002 * size and size > 0, f"{key}: {off:.3g} of {size:.3g}"
    differs = (first["moved"] - one["moved"]).abs() > 0.01 * SOPHIA[name]["learning_rate"]
    assert differs.float().mean() < 0.005, f"{int(differs.sum())} coordinates took another step"
