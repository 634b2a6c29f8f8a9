"""The baseline of the benchmark gives the library's gradients: a ratio of speeds is of the same work."""

from __future__ import annotations

import pytest
import tiny
import torch
from perf import naive

from expunge import methods

STEER = {"layer": 0, "steering_coefficient": 20.0, "trainable": "."}
BUILT = {
    "pdu": methods.pdu(budget=1.0, multiplier=100.0),
    "npo_kl": methods.npo(beta=0.1, retain="kl"),
    "blur_npo": methods.blur_npo(beta=0.1, gamma=1.0),
    "npo": methods.npo(beta=0.1),
    "rmu": methods.rmu(**STEER, retain_weight=3.0),
}


def gradient(model):
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", BUILT)
def test_naive_step_equals_the_librarys(name):
    t = tiny.trainer(BUILT[name], max_steps=1)
    if name == "pdu":
        t.combine = t.combine.settle(1, lambda _: 1.0)
    t.current_gradient_accumulation_steps = 1
    # move the model off its reference, so that the reference matters
    with torch.no_grad():
        for p, q in zip(t.model.parameters(), tiny.model(5).parameters(), strict=True):
            p.add_(0.5 * q)
    rows = [t.train_dataset[k] for k in range(4)]
    t.training_step(t.model, t.data_collator(rows))
    ours = gradient(t.model)

    m, reference = tiny.model(), tiny.model().eval()
    m.load_state_dict(t.model.state_dict())
    batch = t.data_collator(rows)
    step = naive.STEPS[name]
    steer = {"layer": 0, "steering_coefficient": 20.0, "retain_weight": 3.0} if name == "rmu" else {}
    step(m, *([] if name == "pdu" else [reference]), batch["forget"], batch["retain"], **steer)
    theirs = gradient(m)
    assert ours.norm() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.norm()), rtol=1e-3)
