"""Training written out in a plain loop, formula by formula, for tests to compare a trained model with."""

from __future__ import annotations

import copy
import functools
import math

import tiny
import torch
from method_rows import LR

from expunge import level_losses, losses, sophia
from expunge.combine import MGDA, Bilevel, NormalizedDifference, PCGrad, PrimalDual, TorchJD, WeightedSum
from expunge.method import Objective


def fn_of(objective):
    return objective.function


def keywords(objective):
    return getattr(objective.loss, "keywords", {})


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


@functools.cache
def frozen(taught):
    """The start model, or the one that gives the level."""
    return (tiny.model() if taught else tiny.never_taught()).eval()


@functools.cache
def frozen_logits(taught, ids):
    """Of one text: (T, V).  The loops of all methods read the same few."""
    with torch.no_grad():
        return frozen(taught)(input_ids=torch.tensor([ids])).logits[0]


def hand_written(method, steps=3, start=1.0):
    """The same steps in a plain loop: logits of a text at a time, autograd, a model of its own as reference, flat gradients.

    ``start``: the start model's retain loss.
    """
    m, ref, never = tiny.model(), functools.partial(frozen_logits, True), functools.partial(frozen_logits, False)
    data = tiny.paired()
    rows = [data[k] for k in range(4 * steps)]
    combine = copy.deepcopy(method.combine)
    if isinstance(combine, PrimalDual):
        combine = combine.settle(steps, lambda _: start)
    multiplier, mean = combine.multiplier if isinstance(combine, PrimalDual) else None, start
    size = sum(p.numel() for p in m.parameters())
    momentum, curvature = torch.zeros(size), torch.zeros(size)

    def now(ids):
        return m(input_ids=torch.tensor([ids])).logits[0]

    def stats(logits, items):
        """Per row: log-probabilities (T,), full log-softmax rows and logits rows of the answer's predictions."""
        out = []
        for r in items:
            labels = torch.tensor(list(r["labels"]))
            z = logits(tuple(r["input_ids"]))
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
            here = activations(m, [w["forget"] for w in window], kw["layer"])
            return torch.stack([((h - to) ** 2).mean() for h in here]).mean()
        if fn is losses.activation_matching:
            here = activations(m, [w["retain"] for w in window], kw["layer"])
            with torch.no_grad():
                then = activations(frozen(True), [w["retain"] for w in window], kw["layer"])
            return torch.stack([((a - b) ** 2).mean() for a, b in zip(here, then, strict=True)]).mean()
        own = stats(now, [w[o.on[0]] for w in window])
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
            alt = stats(now, [w["alternate"] for w in window])
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
        if fn is level_losses.above_level:  # the tokens above the level; what is divided by is as of all
            inner = fn_of(Objective(kw["loss"], ()))
            with torch.no_grad():
                level = [lp for lp, _, _ in stats(never, [w["forget"] for w in window])]
            above = [(lp > at).double() for (lp, _, _), at in zip(own, level, strict=True)]
            if inner is losses.flattened_margin:
                squares = [(z.max(-1).values - z.mean(-1)) ** 2 for _, _, z in own]
                return torch.stack([(s * a).mean() for s, a in zip(squares, above, strict=True)]).mean()
            if inner is losses.npo:
                ratios = [((lp - at) * a).sum() for (lp, _, _), at, a in zip(own, level, above, strict=True)]
                return (-2 / 0.1 * torch.log(torch.sigmoid(-0.1 * torch.stack(ratios)))).mean()
            weights = [lp.detach().exp() if inner is losses.wga else torch.ones_like(lp) for lp, _, _ in own]
            return token_mean([w * a * lp for w, a, (lp, _, _) in zip(weights, above, own, strict=True)])
        if fn in (level_losses.level_divergence, level_losses.level_distance):
            with torch.no_grad():
                there = stats(never, [w["forget"] for w in window])
            level = [lp.exp() for lp, _, _ in there]
            pairs = [(lp.exp(), q) for (lp, _, _), q in zip(own, level, strict=True)]
            logits = [[(v / (1.0001 - v)).log() for v in pair] for pair in pairs]
            squares = [(p - q) * (a - b) for (p, q), (a, b) in zip(pairs, logits, strict=True)]
            if fn is level_losses.level_divergence:
                return token_mean(squares)
            apart = [(a - b).abs() for a, b in logits]
            huber = [torch.where(d < 1, d * d / 2, d - 0.5) for d in apart]
            assert tiny.V == 32  # so that no token is among the others
            whole = [(lq.exp() * (lq - lp)).sum(-1) for (_, lp, _), (_, lq, _) in zip(own, there, strict=True)]
            per_row = [(kl + 0.3 * h).mean() for kl, h in zip(whole, huber, strict=True)]
            return torch.stack([(r + 1e-4).sqrt() - 0.01 for r in per_row]).mean()
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
            alt = stats(now, [w["alternate"] for w in window])
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
            over = values[1].item() - combine.budget
            assert combine.warmup_steps == 0 or combine.keep is None
            if combine.keep is None:
                multiplier = max(combine.min_multiplier, multiplier + combine.step_size * over)
            else:  # of a running mean; forget : retain is 1 : λ above 1, 1/λ : 1 below
                mean = 0.8 * mean + 0.2 * values[1].item()
                over = (mean - combine.budget) / math.log(1 / combine.keep)
                by = combine.step_size * min(1.0, max(-1.0, over))
                forget, retain = max(1.0, 1 / multiplier), max(1.0, multiplier)
                lean = retain - forget + by
                multiplier = max(combine.min_multiplier, 1 + lean if lean > 0 else 1 / (1 - lean))
                multiplier = min(combine.max_multiplier, multiplier)
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
