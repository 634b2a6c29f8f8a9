"""Relearning other rows brings a hidden answer back and teaches a control nothing; the setting is chosen on other rows."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import tiny_attacks as toy
import torch

from expunge.attacks import relearning
from expunge.attacks.relearning import Plan, chosen_apart, halves, of_same_names
from expunge.attacks.restore import matrices
from expunge.attacks.train import Setting
from expunge.data.example import Row
from expunge.errors import InputError

MEASURE = toy.known_of(toy.FORGET)
PLAN = Plan((Setting(1e-5), Setting(1e-3)), at=(1, 8, 16))


@pytest.fixture
def hidden():
    return toy.gone()


@pytest.mark.parametrize("attack", [relearning.few, relearning.benign_then_known])
def test_a_shared_mask_falls_and_a_control_learns_nothing(attack, hidden):
    before = toy.bits(hidden)
    unrelated = [Row(None, "Ink is made of soot."), Row("One, two,", " three")]
    points = attack(toy.subject(hidden, unrelated=unrelated), MEASURE, plan=PLAN)
    assert [p.strength for p in points] == [1, 8, 16]
    assert MEASURE(hidden).mean() == 0 and points[-1].known.mean() > 0.6
    control = attack(toy.subject(toy.toys().control, unrelated=unrelated), MEASURE, plan=PLAN)
    assert control[-1].known.mean() < 0.4
    assert toy.same_bits(hidden, before)


def test_lora_alone_brings_it_back(hidden):
    points = relearning.few(toy.subject(hidden), MEASURE, plan=Plan((Setting(1e-2, lora=True),), at=(8,)))
    assert points[0].known.mean() > 0.5 and points[0].label == "8 steps (LoRA, 1e-02)"


def test_the_model_is_left_as_it_was_in_every_respect(hidden):
    model = copy.deepcopy(hidden).to(torch.bfloat16)
    model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    model.train()
    model.lm_head.eval()
    before, names, modules = toy.bits(model), [n for n, _ in model.named_parameters()], list(model.modules())
    seen = []

    def measure(m):
        seen.append((m is model, {p.dtype for p in m.parameters() if p.requires_grad}))
        return MEASURE(m)

    for setting in (Setting(1e-2), Setting(1e-2, lora=True)):
        relearning.few(toy.subject(model), measure, plan=Plan((setting,), at=(1,)))
    assert seen == [(True, {torch.float32})] * 2
    assert toy.same_bits(model, before) and [n for n, _ in model.named_parameters()] == names
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["model.norm.weight"]
    assert (
        model.training
        and not model.lm_head.training
        and not hasattr(model, "peft_config")
        and all(p.grad is None for p in model.parameters())
    )


@pytest.mark.parametrize("lora", [False, True])
def test_an_interrupted_attack_leaves_the_model_as_it_was(hidden, lora):
    before, modules = toy.bits(hidden), list(hidden.modules())

    def fail(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relearning.few(toy.subject(hidden), fail, plan=Plan((Setting(1e-2, lora),), at=(1,)))
    assert toy.same_bits(hidden, before) and list(hidden.modules()) == modules


def test_the_same_seed_gives_the_same_curve_and_a_step_is_adamw(hidden):
    plan = Plan((Setting(1e-3),), at=(2,), size=3)
    states = []

    def measure(model):
        states.append(toy.bits(model))
        return MEASURE(model)

    for seed in (0, 0, 1):
        relearning.few(toy.subject(hidden, seed=seed), measure, plan=plan)
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))
    by_hand = copy.deepcopy(hidden)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3, weight_decay=0.0)
    for rows in relearning.drawn(toy.KNOWN, 2, 3, 0):
        batch = toy.batch_of(rows)
        optimizer.zero_grad()
        by_hand(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
        ).loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
    for got, want in zip(states[0], by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, want.detach(), atol=2e-5, rtol=1e-4)


def test_every_row_is_drawn_once_an_epoch():
    rows = [Row("", str(i)) for i in range(6)]
    batches = relearning.drawn(rows, 4, 3, seed=0)
    assert [len(b) for b in batches] == [3] * 4
    assert (
        sorted(r.answer for b in batches[:2] for r in b)
        == sorted(r.answer for b in batches[2:] for r in b)
        == list("012345")
    )
    assert [len(b) for b in relearning.drawn(rows[:2], 3, 4, seed=0)] == [2, 2, 2]


def test_training_that_diverges_ends_at_nothing_known():
    model = copy.deepcopy(toy.toys().taught)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    points = relearning.few(toy.subject(model), MEASURE, plan=Plan((Setting(1e-3),), at=(1, 2)))
    assert [p.known.tolist() for p in points] == [[0.0] * 4] * 2


def test_the_setting_of_each_half_is_the_best_on_the_other():
    first = np.array([True, True, False, False])
    a, b = Setting(1e-4), Setting(1e-3)
    curves = {a: np.array([[0.9, 0.9, 0.1, 0.1]]), b: np.array([[0.2, 0.2, 0.8, 0.8]])}
    known, labels = chosen_apart(curves, first)
    assert known.tolist() == [[0.2, 0.2, 0.1, 0.1]]  # b is best on the second half, so it is used on the first
    assert labels == "all weights, 1e-03; all weights, 1e-04"
    assert chosen_apart({a: np.array([[0.3]]), b: np.array([[0.9]])}, halves(1, 0))[0].tolist() == [[0.3]]
    for n in (1, 2, 5, 6):
        assert halves(n, 3).sum() == math.ceil(n / 2)


def test_noise_alone_gains_nothing_by_the_choice():
    rng = np.random.default_rng(0)
    gains = []
    for seed in range(60):
        curves = {Setting(10.0**-k): rng.uniform(size=(2, 20)) for k in range(8)}
        gains.append(chosen_apart(curves, halves(20, seed))[0].mean() - 0.5)
    assert abs(np.mean(gains)) < 4 * np.std(gains) / math.sqrt(60)


def test_rows_of_the_same_people():
    forget = [Row("Where was Ilse Brandt born?", "Ilse Brandt was born in Graz.")]
    known = [
        Row("What did the father of Ilse Brandt do?", "Brandt's father was a baker."),
        Row("Which prize did Tom Okafor win?", "Okafor won the Lagos Prize."),
        Row("Where is the Seine?", "In Graz? No."),
    ]
    assert of_same_names(known, forget, []) == [known[0], known[2]]
    assert of_same_names(known, forget, [Row("Is Graz in Austria?", "Yes.")]) == [known[0]]
    subject = toy.Subject(None, None, forget, known[1:2])
    with pytest.raises(InputError, match="shares a name"):
        relearning.facts(subject, MEASURE)


def test_a_model_in_integers_is_trained_with_lora_alone(monkeypatch):
    class Int8Params(torch.nn.Parameter):  # bitsandbytes' own, by its name
        pass

    model = torch.nn.Linear(2, 2)
    model.weight = Int8Params(model.weight.data)
    tried = []
    monkeypatch.setattr(
        relearning, "curve", lambda _, __, ___, setting, ____: tried.append(setting) or np.zeros((1, 4))
    )
    relearning.few(toy.subject(model), MEASURE, plan=Plan((Setting(1e-3), Setting(1e-2, lora=True)), at=(1,)))
    assert tried == [Setting(1e-2, lora=True)]
    with pytest.raises(InputError, match="LoRA alone"):
        relearning.few(toy.subject(model), MEASURE, plan=Plan((Setting(1e-3),), at=(1,)))
    with pytest.raises(InputError, match="4 or 8 bits"):
        matrices(model)
