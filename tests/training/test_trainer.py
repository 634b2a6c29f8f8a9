"""What the contract's table does not say of the trainer."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import Trainer, TrainerCallback

from expunge import methods
from expunge.combine import PrimalDual
from expunge.errors import InputError
from expunge.models import attach_lora
from expunge.training.gradients import gramian, write_combined


class Flat(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        e = tiny.example(500 + i)
        return {"input_ids": e.input_ids, "labels": e.labels, "index": i}


def test_a_plain_evaluation_is_the_stock_trainers():
    t = tiny.trainer(methods.blur_npo())
    t.eval_dataset = Flat()
    drop = lambda rows: {k: v for k, v in t_collate(rows).items() if k != "index"}  # noqa: E731
    t_collate, t.data_collator = t.data_collator, drop
    stock = Trainer(model=t.model, args=t.args, eval_dataset=Flat(), data_collator=drop).evaluate()["eval_loss"]
    assert t.evaluate()["eval_loss"] == pytest.approx(stock, rel=1e-6)


def test_the_multiplier_moves_once_per_optimizer_step():
    moved = []
    for size, cuts in [(4, 1), (1, 4)]:
        kw = {"per_device_train_batch_size": size, "gradient_accumulation_steps": cuts, "max_steps": 1}
        t = tiny.trainer(methods.pdu(budget=1.0, step_size=0.5, multiplier=2.0, warmup_steps=0), **kw)
        t.train()
        loss = t.state.log_history[0]["loss/retain"]
        assert float(t.combine.weights(torch.zeros(2))[1]) == pytest.approx(2.0 + 0.5 * (loss - 1.0), rel=1e-5)
        moved.append(loss)
    assert moved[0] == pytest.approx(moved[1], rel=1e-5)


def test_warm_up_is_a_share_of_the_optimizer_steps():
    t = tiny.trainer(methods.pdu(budget=0.1, multiplier=2.0, warmup=0.5), max_steps=6)
    t.train()
    path = [h["multiplier"] for h in t.state.log_history if "multiplier" in h]
    assert path[:4] == [2.0] * 4 and path[4] > 2.0  # 3 steps of warm-up; the step after the 3rd moves λ for the 5th


def test_the_method_keeps_its_own_combiner():
    method = methods.pdu(budget=0.1, multiplier=2.0, warmup=0.0)
    tiny.trainer(method).train()
    assert float(method.combine.weights(torch.zeros(2))[1]) == 2.0


def test_a_budget_from_the_start_models_loss():
    t = tiny.trainer(methods.pdu(tolerance=0.5))
    start = t.measure("retain")
    rows = t.train_dataset.streams["retain"]
    whole = tiny.model()
    losses = []
    for r in rows:
        lp = whole(torch.tensor([r.input_ids])).logits[0].log_softmax(-1)
        losses += [-lp[i - 1, y].item() for i, y in enumerate(r.labels) if y != -100]
    assert start == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    t.train()
    assert t.combine.budget == pytest.approx(1.5 * start, rel=1e-5)


def test_no_budget_follows_from_a_divergence_to_itself():
    with pytest.raises(InputError, match="give budget="):
        tiny.trainer(replace(methods.npo(retain="kl"), combine=PrimalDual())).train()


def test_a_mixture_is_a_value():
    npo_under_a_budget = replace(methods.npo(), combine=PrimalDual(budget=3.0, multiplier=1.0))
    t = tiny.trainer(npo_under_a_budget)
    t.train()
    assert "multiplier" in t.state.log_history[0]


def test_gramian_and_combination_with_a_missing_gradient():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])
    c = torch.tensor([4.0, 5.0])
    gram = gramian([[a, b], [c, None]])
    assert gram.tolist() == [[14.0, 14.0], [14.0, 41.0]]  # 1+4+9, 4+10, 16+25
    params = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1, 1))]
    write_combined(params, [[a, b], [c, None]], torch.tensor([2.0, -1.0]))
    assert params[0].grad.tolist() == [-2.0, -1.0] and params[1].grad.tolist() == [[6.0]]


def test_frozen_weights_get_no_gradient():
    m = tiny.model()
    for n, p in m.named_parameters():
        p.requires_grad_("layers.1.mlp.down_proj" in n)
    t = tiny.trainer(methods.blur_margin(), m=m)
    t.train()
    start = dict(tiny.model().named_parameters())
    moved = [n for n, p in m.named_parameters() if not torch.equal(p, start[n])]
    assert moved == ["model.layers.1.mlp.down_proj.weight"]


def test_a_reference_is_computed_in_the_number_format_of_the_steps():
    """In bf16 the model's ratio to its start is 1 before the first step, so NPO's loss is 2/β·log 2 exactly."""
    trainer = tiny.trainer(methods.npo(beta=0.1), use_cpu=True, bf16=True, max_steps=1)
    trainer.train()
    (first,) = (row["loss/forget"] for row in trainer.state.log_history if "loss/forget" in row)
    assert first == pytest.approx(20 * math.log(2), rel=1e-6)


def test_lora_factors_take_bf16_inputs_while_training_alone():
    """Autocast casts them, so PEFT need not; outside of training it does again."""
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            seen.extend(m.cast_input_dtype_enabled for m in model.modules() if isinstance(m, BaseTunerLayer))

    model = attach_lora(tiny.model().to(torch.bfloat16), r=2, alpha=4, seed=0)
    trainer = tiny.trainer(methods.npo(), model, use_cpu=True, bf16=True, max_steps=1)
    trainer.add_callback(Look())
    trainer.train()
    assert set(seen) == {False}
    assert {m.cast_input_dtype_enabled for m in model.modules() if isinstance(m, BaseTunerLayer)} == {True}


def test_where_a_backward_pass_is_a_step_there_is_one_of_all_objectives():
    """DeepSpeed's engine steps in each backward pass: two objectives took two steps of Adam."""
    t = tiny.trainer(methods.grad_diff())
    t.current_gradient_accumulation_steps = 1
    called = []
    t.accelerator = SimpleNamespace(
        distributed_type=SimpleNamespace(value="DEEPSPEED"),
        native_amp=False,
        backward=lambda loss, **kw: called.append((float(loss), kw)),
    )
    value = t._pass(t.model, t.data_collator([t.train_dataset[i] for i in range(4)]))
    assert called == [(pytest.approx(float(value)), {"scale_wrt_gas": False})]
