"""The training of a module: its penalty is an objective without a stream."""

from __future__ import annotations

from functools import partial

import pytest
import tiny
import torch
import torch.nn.functional as F

from expunge import losses, models
from expunge.combine import WeightedSum
from expunge.method import Method, Objective
from expunge.models.lora import orthogonality
from expunge.release import make, modules
from expunge.release.modules import input_factors
from expunge.unlearning import describe as about_run

LR, WEIGHT = 0.05, 0.3


def with_penalty(weight=WEIGHT, **kw):
    """A trainer on a LoRA whose A is kept apart from another LoRA's, and the frozen one."""
    _, frozen = models.detach_lora(models.attach_lora(tiny.model(), r=3, alpha=3, seed=5))
    net = models.attach_lora(tiny.model(), r=2, alpha=4, seed=0)
    with torch.no_grad():
        for n, p in net.named_parameters():
            if "lora_B" in n:
                p.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(n)))
    method = modules.method(input_factors(net, frozen), weight)
    return tiny.trainer(method, m=net, **({"learning_rate": LR} | kw)), frozen


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters() if p.requires_grad])


def test_cutting_a_step_into_micro_batches_changes_nothing():
    whole, _ = with_penalty()
    whole.train()
    cut, _ = with_penalty(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    cut.train()
    torch.testing.assert_close(weights(whole.model), weights(cut.model), atol=1e-6, rtol=1e-5)
    logs = [[h["loss/orthogonality"] for h in t.state.log_history if "loss/forget" in h] for t in (whole, cut)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_three_steps_equal_a_hand_written_loop():
    t, frozen = with_penalty()
    start = weights(t.model).clone()
    hand, _ = with_penalty()
    net, data = hand.model, hand.train_dataset
    moving = {n: p for n, p in net.named_parameters() if p.requires_grad}
    for step in range(3):
        nll = []
        for k in range(4 * step, 4 * step + 4):
            row = data[k]["forget"]
            z = net(torch.tensor([row["input_ids"]])).logits[0]
            nll.append(F.cross_entropy(z[:-1], torch.tensor(row["labels"])[1:], reduction="none", ignore_index=-100))
        scored = torch.cat([x[x != 0] for x in nll])
        penalty = sum(
            (frozen.state[n.replace(".default", "")] @ p.T).abs().sum() for n, p in moving.items() if "lora_A" in n
        )
        grads = torch.autograd.grad(scored.mean() + WEIGHT * penalty, list(moving.values()))
        with torch.no_grad():
            for p, g in zip(moving.values(), grads, strict=True):
                p -= LR * g
    t.train()
    assert (weights(t.model) - start).norm() > 1e-2
    torch.testing.assert_close(weights(t.model), weights(net), atol=5e-6, rtol=1e-4)


def test_the_penalty_falls_in_training_and_is_logged():
    t, _ = with_penalty(max_steps=8)
    t.train()
    path = [h["loss/orthogonality"] for h in t.state.log_history if "loss/forget" in h]
    assert path[-1] < 0.8 * path[0] and t.state.log_history[0]["weight/orthogonality"] == pytest.approx(WEIGHT)
    free, _ = with_penalty(0.0)
    assert list(free.method.objectives) == ["forget"]
    assert list(modules.method([], 0.5).objectives) == ["forget"]


def test_an_objective_without_a_stream_meets_a_gramian():
    from expunge.combine import Bilevel

    t, _ = with_penalty()
    t = tiny.trainer(Method(t.method.objectives, Bilevel()), m=t.model, learning_rate=LR, max_steps=1)
    t.train()
    assert {"loss/orthogonality", "cosine"} <= set(t.state.log_history[0])


def test_module_training_is_short_unless_told_otherwise(workplace):
    chosen = make({"model": "m", "forget": [], "training": {"use_cpu": True}})
    many = modules.arguments(chosen, "forget", 1, 5000, workplace)
    assert many.num_train_epochs == 2 and many.learning_rate == pytest.approx(2e-4)
    few = modules.arguments(chosen, "forget", 1, 16, workplace)
    assert few.num_train_epochs == 10  # 2 optimizer steps an epoch: no row more often than ten times
    assert modules.arguments(chosen, "forget", 1, 3, workplace).num_train_epochs == 16  # but 16 steps at least
    assert modules.arguments(chosen, "forget", 1, 64, workplace).num_train_epochs == 7  # of 8 steps: 50 and a few
    assert few.seed != modules.arguments(chosen, "forget", 2, 16, workplace).seed
    explicit = make({"model": "m", "forget": [], "training": {"use_cpu": True, "num_train_epochs": 1}})
    assert modules.arguments(explicit, "forget", 1, 16, workplace).num_train_epochs == 1
    assert (chosen.run.lora.r, chosen.run.lora.alpha, chosen.run.adapter) == (8, 16, "lora")


def test_the_penalty_is_the_objective_that_the_trainer_sees():
    pairs = [(torch.ones(1, 2), torch.nn.Parameter(torch.ones(1, 2)))]
    method = modules.method(pairs, 0.5)
    assert method.objectives["orthogonality"] == Objective(method.objectives["orthogonality"].loss, on=())
    assert method.objectives["orthogonality"].loss.func is orthogonality and method.combine == WeightedSum(1.0, 0.5)
    assert (
        isinstance(method.objectives["orthogonality"].loss, partial) and method.objectives["forget"].loss is losses.nll
    )
    assert (
        method.streams == ("forget",) and about_run.describe(method)["objectives"]["orthogonality"] == "orthogonality"
    )
