"""The warm-up begins above 0 and meets transformers' own schedule at its end."""

from __future__ import annotations

import pytest
import torch
from transformers.optimization import get_scheduler

from expunge.training.schedule import from_above_zero


def rates(name, warmup, steps, *, shifted, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = get_scheduler(name, optimizer, warmup, steps, kwargs)
    if shifted:
        from_above_zero(schedule, warmup)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        assert schedule.get_last_lr() == out[-1:]
        optimizer.step()
        schedule.step()
    return out


def test_by_hand():
    assert rates("linear", 4, 8, shifted=True) == [0.5, 1.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5]
    assert rates("linear", 1, 1, shifted=True) == [2.0]


@pytest.mark.parametrize("name", ["linear", "cosine", "constant_with_warmup", "inverse_sqrt", "polynomial"])
def test_after_the_warm_up_all_is_as_it_was(name):
    own, plain = rates(name, 3, 10, shifted=True), rates(name, 3, 10, shifted=False)
    assert own[3:] == plain[3:] and own[:3] == pytest.approx([2 / 3, 4 / 3, 2.0]) and plain[0] == 0


@pytest.mark.parametrize(("name", "warmup"), [("linear", 0), ("constant", 3)])
def test_what_has_no_warm_up_stays(name, warmup):
    assert rates(name, warmup, 5, shifted=True) == rates(name, warmup, 5, shifted=False)
