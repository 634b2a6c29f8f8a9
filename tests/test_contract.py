"""The contract every method passes: a new method adds a row, and nothing else, to be tested here.

Each line is a bug that was found in published code.
"""

from __future__ import annotations

import copy
import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny
import torch
from transformers import LlamaForCausalLM

from expunge import losses, sophia
from expunge.combine import MGDA, Bilevel, NormalizedDifference, PCGrad, PrimalDual, TorchJD, WeightedSum
from expunge.forward.view import ForwardPass, see
from expunge.method import Activations, build, entries
from expunge.models import attach_lora
from expunge.training import reference
from expunge.training.arguments import optimized
from expunge.training.reference import live_view

# Where a default would hide a path: a budget for KL, a dual step that moves within three optimizer steps.
STEER = {"layer": 0, "steering_coefficient": 20.0, "trainable": "."}  # the tiny model has two layers
PARAMETERS: dict[str, dict] = {
    "pdu": {"budget": 3.0, "warmup": 0.0, "multiplier": 2.0},
    "constrained": {"budget": 3.0},
    "task_vector": {"scale": 0.5},
    "rmu": STEER | {"retain_weight": 3.0},
    "blur_rmu": STEER | {"gamma": 0.5},
}
ROWS = [(name, PARAMETERS.get(name, {})) for name in entries() if name != "torchjd" or find_spec("torchjd")] + [
    ("npo", {"retain": "kl"}),
    ("blur_npo", {"retain": "kl", "one_sided": True}),
    ("pdu", {"budget": 0.1, "retain": "kl", "warmup": 0.0, "multiplier": 2.0}),
    ("undial", {"retain": "js"}),
    ("ce_u", {"ignore_first": 0, "retain": "nll"}),
    ("flat", {"divergence": "jensen_shannon", "retain": "kl"}),
    ("constrained", {"forget": "wga", "budget": 0.001, "retain": "js"}),
    ("blur", {"forget": "flat"}),
    ("pcgrad", {"forget": "gradient_ascent"}),
    ("mgda", {"forget": "idk_dpo"}),
    ("ngdiff", {"forget": "jensun"}),
]
IDS = [name + ("+" + "+".join(f"{k}={v}" for k, v in p.items()) if p else "") for name, p in ROWS]
LR = 0.05
every = pytest.mark.parametrize(("name", "parameters"), ROWS, ids=IDS)
LOGITS = [row for row in ROWS if "rmu" not in row[0]]  # the others run no head: tests/test_layers.py
reads_logits = pytest.mark.parametrize(("name", "parameters"), LOGITS, ids=[IDS[ROWS.index(row)] for row in LOGITS])


def fn_of(objective):
    return objective.function


def keywords(objective):
    return getattr(objective.loss, "keywords", {})


def trained(name, parameters, *, model=None, data=None, **kw):
    t = tiny.trainer(build(name, parameters), m=model, data=data, **({"learning_rate": LR} | kw))
    t.train()
    return t


# -- losses of a method on one batch ----------------------------------------------------------------------------------------
def objective_values(name, parameters, batch_of):
    """Each objective's loss and gradient on fixed batches, the reference a model of another seed."""
    m, ref = tiny.model(0), tiny.model(1)
    out = {}
    for role, o in build(name, parameters).objectives.items():
        views = []
        for stream in o.on:
            b = batch_of(stream)
            views.append(see(m, b, reference=lambda b=b: see(ref, b, grad=False)))
        loss = o.loss(*views)
        grads = torch.autograd.grad(loss, list(m.parameters()), allow_unused=True)
        out[role] = (loss.detach(), torch.cat([torch.zeros(0) if g is None else g.flatten() for g in grads]))
    return out


STREAMS = {"forget": tiny.examples(0, 4), "retain": tiny.examples(100, 4), "alternate": tiny.examples(200, 4)}


@every
def test_padding_changes_nothing(name, parameters):
    def wide(stream):
        b = tiny.batch(STREAMS[stream])
        pad = torch.full((4, 7), 0)
        return {
            "input_ids": torch.cat([b["input_ids"], pad + 5], 1),
            "attention_mask": torch.cat([b["attention_mask"], pad], 1),
            "labels": torch.cat([b["labels"], pad - 100], 1),
        }

    narrow = objective_values(name, parameters, lambda s: tiny.batch(STREAMS[s]))
    for role, (loss, grad) in objective_values(name, parameters, wide).items():
        torch.testing.assert_close(loss, narrow[role][0])
        torch.testing.assert_close(grad, narrow[role][1], atol=1e-5, rtol=1e-3)


@reads_logits
def test_no_gradient_where_there_is_no_label(name, parameters):
    """The logits that predict prompt and padding get exactly no gradient."""
    torch.manual_seed(0)
    for o in build(name, parameters).objectives.values():
        leaves, views = [], []
        for stream in o.on:
            b = tiny.batch(STREAMS[stream])
            z = torch.randn(*b["labels"].shape, tiny.V, requires_grad=True)
            leaves.append((z, b["labels"]))
            reference = ForwardPass.from_logits(torch.randn_like(z), b["labels"])
            views.append(ForwardPass.from_logits(z, b["labels"], reference=reference))
        o.loss(*views).backward()
        if fn_of(o) is losses.jensun:
            assert leaves.pop()[0].grad is None  # it reads the refusal's labels only
        for z, labels in leaves:
            predicts = torch.cat([labels[:, 1:] != -100, torch.zeros(len(labels), 1, dtype=torch.bool)], 1)
            assert (z.grad[~predicts] == 0).all()
            for i in range(1, 1 + keywords(o).get("ignore_first", 0)):  # of each row, what CE-U leaves alone
                predicts &= ~(predicts & (predicts.cumsum(1) == i))
            assert (z.grad[predicts].abs().sum(-1) > 0).all()


@reads_logits
def test_a_constant_on_all_logits_changes_nothing(name, parameters):
    torch.manual_seed(0)
    for o in build(name, parameters).objectives.values():
        values = []
        for shift in (0.0, 30.0):
            views = []
            for k, stream in enumerate(o.on):
                b = tiny.batch(STREAMS[stream])
                g = torch.Generator().manual_seed(k)
                z = torch.randn(*b["labels"].shape, tiny.V, generator=g)
                reference = ForwardPass.from_logits(torch.randn(z.shape, generator=g), b["labels"])
                views.append(ForwardPass.from_logits(z + shift, b["labels"], reference=reference))
            values.append(o.loss(*views))
        torch.testing.assert_close(values[0], values[1], atol=1e-3, rtol=1e-4)


# -- training ---------------------------------------------------------------------------------------------------------------
@every
def test_micro_batches_change_nothing(name, parameters):
    """1×4 = 4×1 = 2×2, with rows of unequal length: a mean is a mean over the optimizer step."""
    if parameters.get("batch_mean"):
        pytest.skip("the compatibility switch averages inside a micro-batch")
    deltas = []
    for size, cuts in [(4, 1), (1, 4), (2, 2)]:
        t = trained(name, parameters, per_device_train_batch_size=size, gradient_accumulation_steps=cuts)
        deltas.append(tiny.delta(t.model, tiny.model()))
    assert deltas[0].norm() > 1e-4
    for d in deltas[1:]:
        tiny.assert_same_steps(d, deltas[0], t.method, atol=2e-5, rtol=2e-3)


def sampled_curvature(m, method, window, step):
    """Gauss-Newton-Bartlett in a plain loop: a label for each labelled token of each stream, one flat gradient, B ĝ²."""
    values = []
    for stream in method.streams:
        for r in (w[stream] for w in window):
            z = m(input_ids=torch.tensor([list(r["input_ids"])])).logits[0]
            at = [t for t in range(len(r["labels"]) - 1) if r["labels"][t + 1] != -100]
            chance = torch.rand(
                len(at), generator=sophia.generator(42, step, stream, r["index"])
            )  # 42: the default seed
            for t, u in zip(at, chance.tolist(), strict=True):
                below = z[t].detach().double().softmax(-1).cumsum(-1)
                label = next(k for k, c in enumerate(below.tolist()) if c > u)
                values.append(-z[t].log_softmax(-1)[label])
    got = torch.autograd.grad(torch.stack(values).mean(), list(m.parameters()))
    return len(values) * torch.cat([g.flatten() for g in got]) ** 2


def hand_written(method, steps=3):
    """The same steps in a plain loop: padded logits, masks, autograd, a deep copy as reference, flat gradients."""
    m, ref = tiny.model(), tiny.model().eval()
    data = tiny.paired()
    rows = [data[k] for k in range(4 * steps)]
    combine = copy.deepcopy(method.combine)
    if isinstance(combine, PrimalDual):
        combine = combine.settle(steps, lambda _: 1.0)
    multiplier = combine.multiplier if isinstance(combine, PrimalDual) else None
    size = sum(p.numel() for p in m.parameters())
    momentum, curvature = torch.zeros(size), torch.zeros(size)

    def stats(model, items):
        """Per row: log-probabilities (T,), full log-softmax rows and logits rows of the answer's predictions."""
        out = []
        for r in items:
            ids, labels = torch.tensor([list(r["input_ids"])]), torch.tensor(list(r["labels"]))
            z = model(input_ids=ids).logits[0]
            at = [t for t in range(len(labels) - 1) if labels[t + 1] != -100]
            lp = z.log_softmax(-1)
            out.append((torch.stack([lp[t, labels[t + 1]] for t in at]), lp[at], z[at]))
        return out

    def token_mean(values):
        return torch.cat(values).mean()

    def activations(model, items, layer):
        """Per row: what plain transformers gives after the layer, (T, D)."""
        ids = [torch.tensor([list(r["input_ids"])]) for r in items]
        return [model(input_ids=i, output_hidden_states=True).hidden_states[layer + 1][0] for i in ids]

    def js(p, q):
        middle = (p + q) / 2
        return sum((v * (v.clamp(min=1e-30) / middle).log()).sum(-1) for v in (p, q)) / 2

    def loss_of(role, o, k):
        window = rows[4 * k : 4 * k + 4]
        fn, kw = fn_of(o), keywords(o)
        if fn is losses.steering:
            v = torch.rand(16, generator=torch.Generator().manual_seed(kw["seed"]))
            to = kw["steering_coefficient"] * v / v.pow(2).sum().sqrt()
            now = activations(m, [w["forget"] for w in window], kw["layer"])
            return torch.stack([((h - to) ** 2).mean() for h in now]).mean()
        if fn is losses.activation_matching:
            now = activations(m, [w["retain"] for w in window], kw["layer"])
            with torch.no_grad():
                then = activations(ref, [w["retain"] for w in window], kw["layer"])
            return torch.stack([((a - b) ** 2).mean() for a, b in zip(now, then, strict=True)]).mean()
        own = stats(m, [w[o.on[0]] for w in window])
        with torch.no_grad():
            base = stats(ref, [w[o.on[0]] for w in window])
        if fn is losses.nll:
            return token_mean([-lp for lp, _, _ in own])
        if fn is losses.gradient_ascent:
            return token_mean([lp for lp, _, _ in own])
        if fn is losses.kl:
            return token_mean([(b.exp() * (b - a)).sum(-1) for (_, a, _), (_, b, _) in zip(own, base, strict=True)])
        if fn is losses.flattened_margin:
            return torch.stack([((z.max(-1).values - z.mean(-1)) ** 2).mean() for _, _, z in own]).mean()
        if fn is losses.js:
            return token_mean([js(a.exp(), b.exp()) for (_, a, _), (_, b, _) in zip(own, base, strict=True)])
        if fn is losses.satimp:
            p = [lp.detach().exp() for lp, _, _ in own]
            return token_mean([q**5 * (1 - q) * lp for q, (lp, _, _) in zip(p, own, strict=True)])
        if fn is losses.ce_u:
            total, count = 0.0, 0
            for w, (_, lp, z) in zip(window, own, strict=True):
                ys = [y for y in w["forget"]["labels"][1:] if y != -100]
                for t in range(kw["ignore_first"], len(ys)):
                    others = z[t].detach().clone()
                    others[ys[t]] = -torch.inf
                    total = total - (others.softmax(-1) * lp[t]).sum()
                count += len(ys)
            return total / count
        if fn is losses.flat:
            alt = stats(m, [w["alternate"] for w in window])
            p, q = (torch.stack([lp.exp().mean() for lp, _, _ in rows]) for rows in (own, alt))
            if kw["divergence"] == "total_variation":
                return (p.tanh() / 2 - q.tanh() / 2).mean()
            g = math.log(2) - torch.log(1 + torch.exp(-torch.stack([p, q])))
            return (-torch.log(2 - g[0].exp()) - g[1]).mean()
        if fn is losses.jensun:
            parts = []
            for w, (_, lp, _) in zip(window, own, strict=True):
                refusal = [y for y in w["alternate"]["labels"][1:] if y != -100]
                asked = torch.tensor([refusal[t % len(refusal)] for t in range(len(lp))])
                parts.append(js(lp.exp(), torch.nn.functional.one_hot(asked, tiny.V).float()))
            return token_mean(parts)
        beta = kw["beta"]
        if fn is losses.wga:
            return token_mean([(lp.detach().exp() ** beta) * lp for lp, _, _ in own])
        if fn is losses.undial:
            parts = []
            with torch.no_grad():
                _, _, zs = zip(*stats(ref, [w["forget"] for w in window]), strict=True)
            for w, (_, lp, _), z in zip(window, own, zs, strict=True):
                ys = [y for y in w["forget"]["labels"][1:] if y != -100]
                target = torch.stack(
                    [(row - beta * torch.eye(tiny.V)[y]).softmax(-1) for row, y in zip(z, ys, strict=True)]
                )
                parts.append((target * (target.log() - lp)).sum(-1))
            return token_mean(parts)
        if fn is losses.npo:
            ratio = torch.stack([a.sum() - b.sum() for (a, _, _), (b, _, _) in zip(own, base, strict=True)])
            return (-2 / beta * torch.log(torch.sigmoid(-beta * ratio))).mean()
        if fn is losses.simnpo:
            mean = torch.stack([a.mean() for a, _, _ in own])
            return (-2 / beta * torch.log(torch.sigmoid(-beta * mean - kw["margin"]))).mean()
        if fn is losses.dpo:
            alt = stats(m, [w["alternate"] for w in window])
            with torch.no_grad():
                alt_base = stats(ref, [w["alternate"] for w in window])
            chosen = torch.stack([a.sum() - b.sum() for (a, _, _), (b, _, _) in zip(alt, alt_base, strict=True)])
            rejected = torch.stack([a.sum() - b.sum() for (a, _, _), (b, _, _) in zip(own, base, strict=True)])
            return (-2 / beta * torch.log(torch.sigmoid(beta * (chosen - rejected)))).mean()
        raise AssertionError(f"write the plain formula of {fn.__name__} here")

    for k in range(steps):
        values, grads = [], []
        for role, o in method.objectives.items():
            value = loss_of(role, o, k)
            got = torch.autograd.grad(value, list(m.parameters()), allow_unused=True)
            values.append(value.detach())
            pairs = zip(got, m.parameters(), strict=True)
            grads.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]))
        if isinstance(combine, WeightedSum):
            step = sum(w * g for w, g in zip((combine.forget, combine.retain), grads, strict=False))
        elif isinstance(combine, PrimalDual):
            step = grads[0] + multiplier * grads[1]
            multiplier = max(0.0, multiplier + combine.step_size * (values[1].item() - combine.budget))
        elif isinstance(combine, PCGrad):
            f, r = grads
            step = f - min(f @ r, torch.tensor(0.0)) / (r @ r) * r + r - min(r @ f, torch.tensor(0.0)) / (f @ f) * f
        elif isinstance(combine, MGDA):  # the shortest of a thousand points between the two
            f, r = grads
            step = min((a * f + (1 - a) * r for a in torch.linspace(0, 1, 1001)), key=torch.norm)
        elif isinstance(combine, NormalizedDifference):
            step = sum(g / g.norm() for g in grads)
        elif isinstance(combine, TorchJD):
            from torchjd.aggregation import UPGrad

            step = UPGrad()(torch.stack(grads))
        else:
            assert isinstance(combine, Bilevel)
            f, r = grads
            gamma = combine.gamma * (r.norm() / f.norm() if combine.relative else 1.0)
            xi = gamma - (r @ f) / (f @ f)
            step = r + (max(xi, torch.tensor(0.0)) if combine.one_sided else xi) * f
        if s := method.optimizer:
            if k % s.every == 0:
                estimate = sampled_curvature(m, method, rows[4 * k : 4 * k + 4], k)
                curvature = s.beta2 * curvature + (1 - s.beta2) * estimate
            momentum = s.beta1 * momentum + (1 - s.beta1) * step
            step = (momentum / (s.rho * curvature).clamp(min=s.eps)).clamp(-1, 1)
        with torch.no_grad():
            at = 0
            for p in m.parameters():
                p -= LR * step[at : at + p.numel()].view_as(p)
                at += p.numel()
    if method.negate is not None:
        with torch.no_grad():
            for p, before in zip(m.parameters(), tiny.model().parameters(), strict=True):
                p.copy_((1 + method.negate) * before - method.negate * p)
    return m, multiplier


@every
def test_three_steps_equal_a_hand_written_loop(name, parameters):
    """Invariance alone passes when every configuration is wrong in the same way; this pins the trajectory itself."""
    t = trained(name, parameters)
    m, multiplier = hand_written(build(name, parameters))
    moved = tiny.delta(m, tiny.model())
    assert moved.norm() > 1e-4
    tiny.assert_same_steps(tiny.delta(t.model, tiny.model()), moved, t.method, atol=5e-5, rtol=0)
    if multiplier is not None:
        assert float(t.combine.weights(torch.zeros(2))[1]) == pytest.approx(multiplier, rel=1e-4)


@every
def test_clipping_bounds_the_combined_gradient(name, parameters):
    by_sgd = replace(build(name, parameters), optimizer=None)
    t = tiny.trainer(by_sgd, max_grad_norm=1e-3, max_steps=1, learning_rate=LR)
    t.train()
    moved = tiny.delta(t.model, tiny.model()).norm().item()
    assert moved == pytest.approx((t.method.negate or 1) * LR * 1e-3, rel=1e-2)


@every
def test_resume_equals_uninterrupted_bit_for_bit(name, parameters, tmp_path):
    kw = {
        "save_strategy": "steps",
        "save_steps": 2,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "max_steps": 4,
    }
    method = build(name, parameters)
    whole = tiny.trainer(method, out=str(tmp_path / "whole"), **kw)
    whole.train()
    short = tiny.trainer(method, out=str(tmp_path / "cut"), **{**kw, "max_steps": 2})
    short.train()
    again = tiny.trainer(method, out=str(tmp_path / "cut"), **kw)
    again.train(resume_from_checkpoint=True)
    assert torch.equal(tiny.delta(again.model, whole.model), torch.zeros_like(tiny.delta(whole.model, whole.model)))
    if isinstance(whole.combine, PrimalDual):
        assert again.combine.state_dict() == whole.combine.state_dict()


@every
def test_lora_trains_the_adapter_only(name, parameters):
    m = attach_lora(tiny.model(), r=2, alpha=4, seed=0)
    frozen = {n: p.detach().clone() for n, p in m.named_parameters() if not p.requires_grad}
    before = {n: p.detach().clone() for n, p in m.named_parameters() if p.requires_grad}
    t = trained(name, parameters, model=m)
    assert t.reference.copy is None  # with LoRA the reference is the model with the adapter off
    for n, p in m.named_parameters():
        if n in frozen:
            assert torch.equal(p, frozen[n])
    assert any(not torch.equal(p, before[n]) for n, p in m.named_parameters() if n in before)


@every
def test_the_reference_is_built_only_if_asked_for(name, parameters):
    method = build(name, parameters)
    t = tiny.trainer(method)
    wants_logits = any(o.reference == "logits" for o in method.objectives.values())
    wants_logp = any(o.reference == "token_logp" for o in method.objectives.values())
    wants_activations = any(isinstance(o.reference, Activations) for o in method.objectives.values())
    assert (t.reference.activations is not None) == wants_activations
    assert (t.reference.hidden is not None) == wants_logits and t.reference.copy is None
    assert (t.reference.logp is not None) == wants_logp
    if wants_logp:
        streams = {s for o in method.objectives.values() if o.reference == "token_logp" for s in o.on}
        assert set(t.reference.logp.rows) == streams


def test_the_cached_reference_equals_a_frozen_copy_after_training_moved_the_model():
    t = trained("npo", {})
    rows = t.train_dataset.streams["forget"]
    b = tiny.batch(rows)
    own = see(t.model, b, grad=False)
    cached = t.reference.logp.view("forget", b, own)
    start = see(tiny.model(), b, grad=False)
    torch.testing.assert_close(cached.sequence_logp, start.sequence_logp)
    assert (own.sequence_logp - start.sequence_logp).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["logp", "hidden", "live"])
def test_the_reference_under_lora_is_the_target_without_dropout(kind):
    m = attach_lora(tiny.model(attention_dropout=0.5), r=2, alpha=4, seed=0).train()
    with torch.no_grad():
        for p in m.parameters():
            p.add_(0.1 * p.requires_grad)  # an adapter that does something
    t = tiny.trainer(build("npo", {"retain": "kl"}), m)
    stream = "forget" if kind == "logp" else "retain"
    b = tiny.batch(t.train_dataset.streams[stream])
    own = see(m, b, grad=False)
    if kind == "logp":
        view = t.reference.logp.view(stream, b, own)
    elif kind == "hidden":
        view = t.reference.hidden.view(stream, b, own)
    else:
        view = live_view(m.train(), None, b, t.method.objectives["retain"])
        assert m.training
    torch.testing.assert_close(view.token_logp, see(tiny.model().eval(), b, grad=False).token_logp)
    assert (own.token_logp - view.token_logp).abs().max() > 1e-2


@pytest.mark.parametrize("lora", [False, True])
def test_activations_a_copy_and_the_adapter_off_are_one_reference(lora, monkeypatch):
    def moved():
        m = attach_lora(tiny.model(), r=2, alpha=4, seed=0) if lora else tiny.model()
        t = trained("rmu", PARAMETERS["rmu"], model=m)
        return t, torch.cat([p.detach().flatten() for p in t.model.parameters()])

    cached, ours = moved()
    monkeypatch.setattr(reference, "hidden_bytes", lambda *_: float("inf"))  # too large to be worth it
    live, theirs = moved()
    assert cached.reference.activations and not live.reference.activations
    assert (live.reference.copy is None) == lora and cached.reference.copy is None
    if not lora:
        assert len(live.reference.copy.model.layers) == 1 and len(live.model.model.layers) == 2
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lora", [False, True])
def test_hidden_states_a_copy_and_the_adapter_off_are_one_reference(lora, monkeypatch):
    def moved(**kw):
        m = attach_lora(tiny.model(), r=2, alpha=4, seed=0) if lora else tiny.model()
        t = trained("grad_diff", {"retain": "kl"}, model=m, **kw)
        return t, torch.cat([p.detach().flatten() for p in t.model.parameters()])

    cached, ours = moved()
    monkeypatch.setattr(reference, "hidden_bytes", lambda *_: float("inf"))  # too large to be worth it
    live, theirs = moved()
    assert cached.reference.hidden and not live.reference.hidden
    assert (live.reference.copy is None) == lora and cached.reference.copy is None
    torch.testing.assert_close(ours, theirs)


def test_only_rows_that_the_run_sees_are_cached():
    t = tiny.trainer(build("npo", {"retain": "kl"}), max_steps=1)
    assert len(t.train_dataset.streams["retain"]) == 11
    assert len(t.reference.hidden.rows["retain"]) == 8  # one step of four, rounded up to the epoch of eight
    b = tiny.batch(t.train_dataset.streams["retain"])
    own = see(t.model, b)
    with pytest.raises(RuntimeError, match="was not cached"):
        t.reference.hidden.view("retain", b, own)


class SoftCapped(LlamaForCausalLM):
    """A model that works on what its head returns."""

    def forward(self, *args, **kw):
        out = super().forward(*args, **kw)
        out.logits = torch.tanh(out.logits)
        return out


def test_a_model_that_works_on_its_logits_gets_a_copy():
    m = SoftCapped(tiny.model().config)
    t = tiny.trainer(build("grad_diff", {"retain": "kl"}), m)
    assert t.reference.hidden is None and t.reference.copy is not None


@every
def test_parameters_are_documented_and_serialisable(name, parameters):
    row = entries()[name]
    made = build(name, parameters)
    assert json.loads(json.dumps(dict(made.parameters))) == dict(made.parameters)
    assert made.name == name and set(made.parameters) == set(row.defaults)
    assert row.paper.startswith("arXiv:") and row.status in ("unreproduced", "reproduced") and row.summary.endswith(".")


# -- two processes ----------------------------------------------------------------------------------------------------------
QUICK = ["npo", "blur_npo", "pdu", "jensun", "rmu"]  # one of each kind; each row starts two processes of its own


@pytest.mark.parametrize(
    ("name", "second_order"),
    [
        *[(name, {}) for name in QUICK],
        ("blur_npo", {"every": 2, "rho": 300}),
        ("grad_diff", {"curvature": "hutchinson", "every": 1, "rho": 30}),
        *[pytest.param(n, {}, marks=pytest.mark.slow) for n in dict(ROWS) if n not in QUICK],
    ],
    ids=str,
)
def test_two_processes_equal_one(name, second_order, tmp_path):
    """DDP on two CPU processes takes the same steps as one process; the ranks stay equal."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    script = Path(__file__).with_name("ddp_worker.py")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-addr",
        "127.0.0.1",
    ]
    done = subprocess.run(
        [
            *launch,
            "--master-port",
            str(port),
            str(script),
            name,
            json.dumps(PARAMETERS.get(name, {})),
            json.dumps(second_order),
            str(tmp_path),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2)]
    assert torch.equal(ranks[0], ranks[1])
    method = optimized(build(name, PARAMETERS.get(name, {})), "sophia" if second_order else None, second_order, {})
    one = tiny.trainer(method, data=tiny.paired(16, 8), gradient_accumulation_steps=2, learning_rate=LR)
    one.train()
    tiny.assert_same_steps(ranks[0], tiny.delta(one.model, tiny.model()), method, atol=2e-5, rtol=2e-3)
