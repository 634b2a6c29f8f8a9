"""The optimizer and its estimators: numbers by hand, exact Hessians, exact expectations."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from expunge import sophia
from expunge.sophia import PUBLISHED, Sophia, gauss_newton_bartlett, hutchinson, sample_labels, signs


def stepped(w, grads, **kw):
    """The weights after a step on each of ``grads``, the curvature given before the first."""
    p = nn.Parameter(torch.tensor(w))
    curvature = kw.pop("curvature", None)
    s = Sophia([p], **({"lr": 0.1, "weight_decay": 0.0} | kw))
    if curvature is not None:
        s.update_curvature({p: torch.tensor(curvature)})
    for g in grads:
        p.grad = torch.tensor(g)
        s.step()
    return p.detach(), s.state[p]


def test_the_step_on_a_quadratic_is_a_sign_step_far_away_and_newtons_near():
    d, w = [8.0, 8.0, 0.5, 0.5], [3.0, -0.02, -3.0, 0.02]  # L = Σ d w² / 2
    out, _ = stepped(
        w, [[a * b for a, b in zip(d, w, strict=True)]], curvature=d, beta1=0.0, beta2=0.0, rho=2.0, lr=0.4
    )
    # clip(w / 2, 1): 1, -0.01, -1, 0.01
    torch.testing.assert_close(out, torch.tensor([3.0 - 0.4, -0.02 + 0.004, -3.0 + 0.4, 0.02 - 0.004]))


def test_with_rho_and_learning_rate_equal_newton_arrives_in_one_step():
    out, _ = stepped([0.3, -0.7], [[3 * 0.3, 5 * -0.7]], curvature=[3.0, 5.0], beta1=0.0, beta2=0.0, rho=1.0, lr=1.0)
    torch.testing.assert_close(out, torch.zeros(2))


def test_no_curvature_or_a_negative_one_gives_the_sign_and_no_gradient_gives_nothing():
    out, _ = stepped([1.0, 1.0, 1.0], [[1e-6, -5.0, 0.0]], curvature=[0.0, -7.0, 0.0])
    assert out.tolist() == pytest.approx([0.9, 1.1, 1.0])


def test_momentum_curvature_and_decay_by_hand():
    p = nn.Parameter(torch.tensor([2.0]))
    s = Sophia([p], lr=0.1, beta1=0.9, beta2=0.95, rho=1.0, weight_decay=0.5)
    s.update_curvature({p: torch.tensor([40.0])})  # h = 0.05 · 40 = 2
    p.grad = torch.tensor([3.0])  # m = 0.3
    s.step()  # 2 · (1 - 0.05) - 0.1 · 0.15
    assert p.item() == pytest.approx(1.885)
    s.update_curvature({p: torch.tensor([2.0])})  # h = 0.95 · 2 + 0.05 · 2 = 2
    p.grad = torch.tensor([-1.0])  # m = 0.27 - 0.1 = 0.17
    s.step()  # 1.885 · 0.95 - 0.1 · 0.085
    assert p.item() == pytest.approx(1.78225)
    assert s.clipped().item() == 0.0


def test_the_published_code_by_hand():
    """m ← 0.81 m + 0.19 g; h ← 0.95 h + 0.05 g²; θ -= lr sign(m) min(|m| / (0.04 · 5120 h + 1e-15), 1)."""
    grads = [[0.004, 0.5], [0.001, -0.5], [-0.002, -0.5]]
    p = nn.Parameter(torch.zeros(2))
    s = Sophia([p], lr=0.1, weight_decay=0.0, **PUBLISHED.of_the_step)
    theta, m, h = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    ratios = []
    for g in grads:
        for i in range(2):
            m[i] = 0.9 * m[i] + 0.1 * g[i]
            h[i] = 0.95 * h[i] + 0.05 * g[i] ** 2
            m[i] = 0.9 * m[i] + 0.1 * g[i]  # again, as published
            ratio = min(abs(m[i]) / (0.04 * 5120 * h[i] + 1e-15), 1.0)
            theta[i] -= 0.1 * (1 if m[i] > 0 else -1) * ratio
            ratios.append(ratio)
        p.grad = torch.tensor(g)
        s.update_curvature({p: sophia.squared_gradient(p.grad)})
        s.step()
    assert p.tolist() == pytest.approx(theta)
    # by hand, the first step: 0.19 · 0.004 / (204.8 · 0.05 · 0.000016) = 4.6 → 1, and 0.095 / 2.56 = 0.0371
    assert ratios[:2] == pytest.approx([1.0, 0.095 / 2.56])
    # unclipped in the steady state where |g| > 1 / 204.8
    steady, _ = stepped([0.0, 0.0], [[0.006, 0.004]], curvature=[0.006**2, 0.004**2], beta1=0.0, beta2=0.0, rho=204.8)
    assert steady.tolist() == pytest.approx([-0.1 / 204.8 / 0.006, -0.1])


def test_several_parameters_and_groups_step_as_each_alone():
    torch.manual_seed(0)
    shapes = [(3, 2), (4,), (1,)]
    ws, gs, hs = ([torch.randn(s) for s in shapes] for _ in range(3))
    params = [nn.Parameter(w.clone()) for w in ws]
    s = Sophia([{"params": params[:2], "weight_decay": 0.3}, {"params": params[2:]}], lr=0.1, weight_decay=0.0)
    s.update_curvature({p: 50 * h.abs() for p, h in zip(params, hs, strict=True)})
    for p, g in zip(params, gs, strict=True):
        p.grad = g
    params[1].grad = None
    s.step()
    assert torch.equal(params[1], ws[1]) and not torch.equal(params[0], ws[0])
    for k, decay in [(0, 0.3), (2, 0.0)]:
        alone, _ = stepped(ws[k].tolist(), [gs[k].tolist()], curvature=(50 * hs[k].abs()).tolist(), weight_decay=decay)
        torch.testing.assert_close(params[k].detach(), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_round_trips_in_fp32(dtype):
    torch.manual_seed(0)
    start = [torch.randn(3, 2, dtype=dtype), torch.randn(5, dtype=dtype)]

    def run(s, params, seed):
        g = torch.Generator().manual_seed(seed)
        s.update_curvature({p: torch.rand(p.shape, generator=g) for p in params})
        for p in params:
            p.grad = torch.randn(p.shape, generator=g).to(dtype)
        s.step()

    def fresh():
        params = [nn.Parameter(w.clone()) for w in start]
        return Sophia([{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.0}], lr=0.01), params

    one, ours = fresh()
    run(one, ours, 1)
    saved = copy.deepcopy(one.state_dict())
    two, theirs = fresh()
    for p, q in zip(theirs, ours, strict=True):
        p.data.copy_(q.data)
    two.load_state_dict(saved)
    assert all(v.dtype == torch.float32 for state in two.state.values() for v in state.values())
    run(one, ours, 2)
    run(two, theirs, 2)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(one.state[p]["curvature"], two.state[q]["curvature"])
        assert torch.equal(one.state[p]["momentum"], two.state[q]["momentum"])
    assert saved["state"][0]["curvature"].data_ptr() != two.state[theirs[0]]["curvature"].data_ptr()


# -- estimators -----------------------------------------------------------------------------------------------------------
def test_gauss_newton_bartlett_is_the_exact_diagonal_in_expectation():
    """Softmax regression z = W x: the Gauss-Newton (and Hessian) diagonal is mean_t p_k (1 - p_k) x_d².

    The expectation is taken over every assignment of labels with its probability, so there is no noise to hide in.
    """
    torch.manual_seed(0)
    x = torch.randn(3, 2, dtype=torch.float64)
    w = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    p = (x @ w.T).softmax(-1).detach()
    exact = torch.einsum("nk,nd->kd", p * (1 - p), x**2) / len(x)

    def mean_ce(flat):
        return -(x @ flat.view(4, 2).T).log_softmax(-1)[:, 0].mean()

    hessian = torch.autograd.functional.hessian(mean_ce, w.detach().flatten()).diagonal().view(4, 2)
    torch.testing.assert_close(exact, hessian)
    expected = torch.zeros_like(exact)
    for labels in itertools.product(range(4), repeat=3):
        (g,) = torch.autograd.grad(-(x @ w.T).log_softmax(-1)[range(3), labels].mean(), w)
        expected += p[range(3), labels].prod() * gauss_newton_bartlett(g, 3).double()
    torch.testing.assert_close(expected, exact, rtol=1e-5, atol=1e-8)


def test_labels_are_drawn_from_the_softmax(monkeypatch):
    torch.manual_seed(0)
    z = torch.randn(6) * 2
    u = (torch.arange(60_000) + 0.5) / 60_000  # every part of [0, 1) once
    drawn = torch.bincount(sample_labels(z.expand(len(u), 6), u), minlength=6) / len(u)
    torch.testing.assert_close(drawn, z.softmax(-1), atol=2e-4, rtol=0)
    rows = torch.randn(999, 6)
    whole = sample_labels(rows, u[::60][:999])
    monkeypatch.setattr(sophia, "CHUNK", 600)
    assert torch.equal(sample_labels(rows, u[::60][:999]), whole)
    impossible = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert [sample_labels(impossible, torch.tensor([v])).item() for v in (0.0, 0.5, 1 - 2**-24)] == [1, 1, 1]


def test_hutchinson_averages_to_the_exact_hessian_diagonal_of_a_small_network():
    """2-2-1 with tanh, 9 weights: the mean over all 2⁹ probes, not a sample of them."""
    torch.manual_seed(0)
    x, y = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)

    def loss_at(theta):
        hidden = torch.tanh(x @ theta[:4].view(2, 2).T + theta[4:6])
        return ((hidden @ theta[6:8] + theta[8] - y) ** 2).mean()

    theta = torch.randn(9, dtype=torch.float64, requires_grad=True)
    start = theta.detach().clone()
    exact = torch.autograd.functional.hessian(loss_at, start).diagonal()
    total = torch.zeros(9, dtype=torch.float64)
    for u in itertools.product([-1.0, 1.0], repeat=9):
        (estimate,) = hutchinson(lambda: loss_at(theta), [theta], [torch.tensor(u, dtype=torch.float64)])
        total += estimate
    assert torch.equal(theta.detach(), start)
    assert exact.min() < 0 < exact.max()  # the sign of the curvature is kept
    torch.testing.assert_close(total / 2**9, exact, rtol=1e-4, atol=1e-4)


def test_hutchinsons_hand_worked_numbers():
    xy = [nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(-1.0))]
    loss = lambda: xy[0] ** 2 + 3 * xy[0] * xy[1] + 2 * xy[1] ** 2  # noqa: E731
    for u, said in [((1.0, 1.0), (5.0, 7.0)), ((1.0, -1.0), (-1.0, 1.0))]:
        got = hutchinson(loss, xy, [torch.tensor(v) for v in u])
        assert [g.item() for g in got] == pytest.approx(said, abs=2e-3)


def test_weights_come_back_when_a_pass_fails():
    p = nn.Parameter(torch.tensor([0.1, 0.7]))
    before = p.detach().clone()
    with pytest.raises(ZeroDivisionError):
        hutchinson(lambda: 1 / 0, [p], [torch.ones(2)])
    assert torch.equal(p.detach(), before)


def test_chance_is_a_function_of_its_key():
    p = [torch.zeros(400), torch.zeros(2, 3)]
    a, b, c = signs(p, 0, 1, "probe"), signs(p, 0, 1, "probe"), signs(p, 0, 2, "probe")
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[0], c[0])
    assert set(a[0].tolist()) == {-1.0, 1.0} and abs(a[0].mean()) < 0.15
