"""Sophia in training: what the estimates are, that cutting a step up changes nothing, resuming, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from by_hand import hand_written, sampled_curvature

from expunge import methods
from expunge.errors import InputError
from expunge.models import attach_lora
from expunge.sophia import PUBLISHED, Settings, signs
from expunge.training import curvature
from expunge.training.arguments import optimized

# ρ where about half of the coordinates are clipped on the tiny model, and an estimate at every second step
HALF = {
    "gauss_newton": Settings(rho=300, every=2),
    "hutchinson": Settings(curvature="hutchinson", rho=30, every=2),
    "squared_gradient": replace(PUBLISHED, rho=30),
}
METHODS = [
    (methods.soul_grad_diff(), "gauss_newton"),
    (methods.soul_grad_diff(), "hutchinson"),
    (methods.soul_npo(), "squared_gradient"),
    (methods.blur_npo(), "gauss_newton"),
    (methods.blur_npo(), "squared_gradient"),
    (methods.pdu(budget=3.0, warmup=0.0, multiplier=2.0), "hutchinson"),
    (methods.idk_dpo(), "gauss_newton"),
]
each = pytest.mark.parametrize(
    "method", [replace(m, optimizer=HALF[c]) for m, c in METHODS], ids=[f"{m.name}-{c}" for m, c in METHODS]
)


def trained(method, model=None, out=None, **kw):
    t = tiny.trainer(method, model, out=out, **({"learning_rate": 0.02} | kw))
    t.train()
    return t


def held(t, key):
    """The flat momentum or curvature, in the order of the model's parameters."""
    state = curvature.inner(t.optimizer).state
    return torch.cat([state[p][key].flatten() for p in t.model.parameters() if p.requires_grad])


@each
def test_micro_batches_change_nothing(method):
    shapes = [(4, 1), (1, 4), *([(2, 2)] if method.name.startswith("soul") else [])]  # one of each curvature
    runs = [trained(method, per_device_train_batch_size=b, gradient_accumulation_steps=n) for b, n in shapes]
    clipped = [row["clipped"] for row in runs[0].state.log_history if "clipped" in row]
    assert min(clipped) > 0.1 and max(clipped) < 0.95  # so that the curvature decides
    for t in runs[1:]:
        tiny.assert_same_steps(
            tiny.delta(t.model, tiny.model()), tiny.delta(runs[0].model, tiny.model()), method, atol=2e-5, rtol=2e-3
        )


@each
def test_resume_equals_uninterrupted_bit_for_bit(method, tmp_path):
    kw = {"save_strategy": "steps", "save_steps": 3, "max_steps": 5}
    whole = trained(method, out=str(tmp_path / "whole"), **kw)
    again = tiny.trainer(method, out=str(tmp_path / "again"), learning_rate=0.02, **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert again.state.global_step == 5
    assert not tiny.delta(again.model, whole.model).any()
    assert torch.equal(held(again, "curvature"), held(whole, "curvature"))
    assert torch.equal(held(again, "momentum"), held(whole, "momentum"))


@pytest.mark.parametrize("of", [methods.blur_npo, methods.grad_diff, methods.idk_dpo])
def test_three_steps_equal_a_hand_written_loop(of):
    method = replace(of(), optimizer=HALF["gauss_newton"])
    t = trained(method, learning_rate=0.05)  # what the contract's loop takes
    m, _ = hand_written(method)
    moved = tiny.delta(m, tiny.model())
    tiny.assert_same_steps(tiny.delta(t.model, tiny.model()), moved, method, atol=5e-5, rtol=0)


def test_the_sampled_estimate_is_the_one_worked_out_in_a_plain_loop():
    method = replace(methods.blur_npo(), optimizer=Settings(beta2=0.0))
    t = trained(method, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_grad_norm=1e-3)
    expected = sampled_curvature(tiny.model(), method, [tiny.paired()[k] for k in range(4)], 0)
    torch.testing.assert_close(held(t, "curvature"), expected, atol=1e-7, rtol=1e-3)  # clipping does not reach it


def test_hutchinsons_estimate_is_the_second_derivative_along_the_probe():
    """Against autograd, twice, on plain logits."""
    method = replace(methods.grad_diff(retain_weight=0.5), optimizer=Settings(curvature="hutchinson", beta2=0.0))
    m = tiny.model(attn_implementation="eager")
    t = trained(method, m, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    m = tiny.model(attn_implementation="eager").double()
    params, data = list(m.parameters()), tiny.paired()
    loss = 0.0
    for stream, weight in [("forget", 1.0), ("retain", -0.5)]:
        chosen = []
        for k in range(4):
            labels = torch.tensor(data[k][stream]["labels"])
            logp = m(torch.tensor([data[k][stream]["input_ids"]])).logits[0, :-1].log_softmax(-1)
            chosen.append(logp[labels[1:] != -100].gather(1, labels[1:][labels[1:] != -100, None]).squeeze(1))
        loss = loss + weight * torch.cat(chosen).mean()
    u = [s.double() for s in signs([p.float() for p in params], 42, 0, "probe")]
    first = torch.autograd.grad(loss, params, create_graph=True)
    second = torch.autograd.grad(sum((g * s).sum() for g, s in zip(first, u, strict=True)), params)
    exact = torch.cat([(s * h).flatten() for s, h in zip(u, second, strict=True)]).float()
    assert (held(t, "curvature") - exact).norm() < 0.01 * exact.norm()
    assert exact.min() < -1e-3 and exact.max() > 1e-3


def test_hutchinsons_two_places_see_the_same_dropout():
    """Else the difference of two dropout masks, divided by the radius, would drown the curvature."""
    method = replace(methods.grad_diff(), optimizer=Settings(curvature="hutchinson", beta2=0.0))
    norms = []
    for p in (0.0, 0.5):
        m = tiny.model(attention_dropout=p)
        with torch.no_grad():
            for w in m.parameters():
                w.mul_(5 if w.dim() > 1 else 1)  # attention that matters
        norms.append(held(trained(method, m, max_steps=1), "curvature").norm())
    assert norms[1] < 2 * norms[0]


def test_every_estimate_has_chance_of_its_own(monkeypatch):
    keys = []
    monkeypatch.setattr(curvature, "signs", lambda params, *key: keys.append(key) or signs(params, *key))
    trained(
        replace(methods.grad_diff(), optimizer=HALF["hutchinson"]), max_steps=4, gradient_accumulation_steps=2, seed=3
    )
    assert keys == [(3, 0, "probe"), (3, 2, "probe")]


def test_the_published_mode_squares_the_clipped_combined_gradient():
    method = replace(methods.blur_npo(), optimizer=PUBLISHED)
    t = trained(method, max_steps=1, max_grad_norm=1e-3)
    h, m = held(t, "curvature"), held(t, "momentum")
    assert (h / 0.05).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-2)
    torch.testing.assert_close(h, 0.05 * (m / 0.19) ** 2)


def test_weight_decay_is_decoupled_and_spares_norms():
    still = replace(methods.grad_diff(forget_weight=0.0, retain_weight=1e-25), optimizer=Settings())  # 0 would end it
    t = trained(still, learning_rate=0.1, weight_decay=0.5, max_steps=2)
    start = dict(tiny.model().named_parameters())
    for n, p in t.model.named_parameters():
        torch.testing.assert_close(p, start[n] * (1.0 if "norm" in n else 0.95**2))


def test_lora_holds_state_for_the_adapter_only():
    m = attach_lora(tiny.model(), r=2, alpha=4, seed=0)
    t = trained(replace(methods.soul_npo(), optimizer=HALF["gauss_newton"]), m)
    trainable = {p for p in m.parameters() if p.requires_grad}
    assert set(curvature.inner(t.optimizer).state) == trainable
    assert held(t, "curvature").max() > 0


def test_the_log_says_what_was_clipped_where_the_curvature_was_estimated():
    t = trained(replace(methods.soul_npo(), optimizer=Settings(every=2)), max_steps=4)
    assert ["clipped" in row for row in t.state.log_history[:4]] == [True, False, True, False]
    assert 0.9 < t.state.log_history[0]["clipped"] <= 1.0


def test_a_users_own_optimizer_stands():
    m = tiny.model()
    own = torch.optim.SGD(m.parameters(), lr=0.1)
    t = type(tiny.trainer(methods.npo()))(
        model=m,
        args=tiny.arguments(),
        train_dataset=tiny.paired(),
        method=methods.soul_grad_diff(),
        optimizers=(own, None),
    )
    assert t.optimizer is own and t.curvature is None


# -- what is refused ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "of", "arguments", "said"),
    [
        (HALF["hutchinson"], methods.blur_npo, {}, "needs one loss, and the weights of Bilevel"),
        (HALF["hutchinson"], methods.npo, {"bf16": True}, "16-bit numbers round away"),
        (HALF["gauss_newton"], methods.npo, {"fp16": True}, "fp16's scaled losses"),
    ],
)
def test_what_an_estimator_cannot_use_is_refused(settings, of, arguments, said):
    args = tiny.arguments()
    for key, value in arguments.items():
        setattr(args, key, value)
    with pytest.raises(InputError, match=said):
        curvature.check(settings, of().combine, args)


def test_bf16_weights_are_refused_where_they_would_be_differenced():
    with pytest.raises(InputError, match="16-bit"):
        tiny.trainer(replace(methods.npo(), optimizer=HALF["hutchinson"]), tiny.model().bfloat16())
    trained(replace(methods.npo(), optimizer=HALF["gauss_newton"]), tiny.model().bfloat16(), max_steps=1)


@pytest.mark.parametrize(("name", "kind"), [("gauss_newton", "MEGATRON_LM"), ("squared_gradient", "DEEPSPEED")])
def test_accelerators_that_hold_the_gradients_are_refused(name, kind, monkeypatch):
    from accelerate.utils import DistributedType

    t = tiny.trainer(methods.npo())
    monkeypatch.setattr(type(t.accelerator), "distributed_type", DistributedType[kind], raising=False)
    with pytest.raises(InputError, match=f"which {kind} does not allow"):
        t._curvature(HALF[name])


# -- what a user says ------------------------------------------------------------------------------------------------------
def test_the_users_optimizer_over_the_methods():
    npo, soul = methods.npo(), methods.soul_npo()
    assert optimized(npo, None, {}, {"optim": "adafactor"}) == npo
    assert optimized(npo, "adamw", {}, {}).optimizer is None and optimized(soul, "adamw", {}, {}).optimizer is None
    assert optimized(soul, None, {}, {}).optimizer == Settings()
    assert optimized(npo, "sophia", {"rho": "0.1", "every": "5"}, {}).optimizer == Settings(rho=0.1, every=5)
    assert optimized(soul, None, {"curvature": "hutchinson"}, {}).optimizer == Settings(curvature="hutchinson")
    assert optimized(soul, "sophia_published", {}, {}).optimizer == PUBLISHED


@pytest.mark.parametrize(
    ("of", "name", "parameters", "training", "said"),
    [
        (methods.npo, "sofia", {}, {}, "did you mean 'sophia'"),
        (methods.npo, None, {"rho": 1}, {}, "say --optimizer sophia"),
        (methods.soul_npo, "adamw", {"rho": 1}, {}, "is a setting of Sophia"),
        (methods.npo, "sophia", {"roh": 1}, {}, "did you mean 'rho'"),
        (methods.npo, "sophia", {"rho": 0}, {}, "optimizer.rho=0 does not fit: Input should be greater than 0"),
        (methods.npo, "sophia", {"curvature": "exact"}, {}, "optimizer.curvature='exact' does not fit"),
        (methods.soul_npo, None, {}, {"optim": "sgd"}, "or say --optimizer adamw"),
        (methods.npo, "sophia", {}, {"adam_beta1": 0.5}, "the training argument adam_beta1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(of, name, parameters, training, said):
    with pytest.raises(InputError, match=said):
        optimized(of(), name, parameters, training)
