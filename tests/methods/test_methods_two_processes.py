"""Several processes on CPUs take the steps of one on the same rows, an epoch's short last step included.

One launch of two trains a row for each way through the trainer; the slow test trains all rows on two and on four.
"""

from __future__ import annotations

import pytest
import torch
from ddp_worker import FEW, FIRST_ORDER, OTHERWISE, SOPHIA, STEPS, left_by
from launch import launched, several_processes


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """What each of two processes left, by row; a row that was not reached fails with what the launch said."""
    return lambda name: left_in(launched(tmp_path_factory), name, 2)


def left_in(folder, name, n):
    files = [folder / f"{name}.{rank}.pt" for rank in range(n)]
    assert all(file.exists() for file in files), (folder / "said").read_text()
    return [torch.load(file, weights_only=True) for file in files]


def check_first_order(left, one):
    """All processes have the same weights; those of one process are at most 1e-5 away."""
    for other in left[1:]:
        assert torch.equal(left[0]["moved"], other["moved"])
    torch.testing.assert_close(left[0]["moved"], one["moved"], atol=1e-5, rtol=0)
    assert one["moved"].norm() > 1e-4 and left[0]["steps"] == one["steps"]
    return (left[0]["moved"] - one["moved"]).abs().max()


def check_sophia(left, one, learning_rate):
    """Momentum and curvature are compared before the clip, where no coordinate hangs on the sign of a rounded zero."""
    for key in left[0]:
        assert torch.equal(left[0][key], left[-1][key]), key
    for key in ("momentum", "curvature"):
        off, size = (left[0][key] - one[key]).norm(), one[key].norm()
        assert off < 0.002 * size and size > 0, f"{key}: {off:.3g} of {size:.3g}"
    differs = (left[0]["moved"] - one["moved"]).abs() > 0.01 * learning_rate
    assert differs.float().mean() < 0.005, f"{int(differs.sum())} coordinates took another step"
    return (left[0]["moved"] - one["moved"]).abs().max()


@pytest.mark.parametrize("name", FEW)
def test_two_processes_equal_one(name, ranks):
    one = left_by(FIRST_ORDER[name])
    check_first_order(ranks(name), one)
    if name == "grad_diff-holdout":
        assert 0 < one["steps"] <= STEPS  # of one more
    if name == "gradient_ascent-keep":
        assert one["steps"] == 4  # the weights are those after the third
    assert [int(left["micro"]) for left in ranks(name)] == ([1, 1] if name.endswith("memory") else [2, 2])


@pytest.mark.parametrize("name", SOPHIA)
def test_two_processes_estimate_the_curvature_of_one(name, ranks):
    check_sophia(ranks(name), left_by(SOPHIA[name]), SOPHIA[name]["learning_rate"])


@pytest.mark.slow
def test_two_and_four_processes_equal_one_for_every_method(tmp_path):
    """Prints the table of the largest differences of a weight."""
    for n in (2, 4):
        (tmp_path / str(n)).mkdir()
        said = several_processes("ddp_worker.py", [".", "all"], tmp_path / str(n), n)
        (tmp_path / str(n) / "said").write_text(said)
    print(f"\n{'row':60} {'2 processes':>12} {'4 processes':>12}")
    for name, row in (FIRST_ORDER | SOPHIA).items():
        one = left_by(row)
        compared = [left_in(tmp_path / str(n), name, n) for n in (2, 4)]
        if name in SOPHIA:
            off = [check_sophia(left, one, row["learning_rate"]) for left in compared]
        else:
            off = [check_first_order(left, one) for left in compared]
        print(f"{name:60} {off[0]:12.1e} {off[1]:12.1e}")
    assert OTHERWISE.keys() <= FIRST_ORDER.keys()
