"""Closed-form kernels against autograd on the textbook formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from expunge.forward import kernels

N, D, V = 7, 5, 11


@pytest.fixture(params=[4, 1 << 22])
def chunk(request, monkeypatch):
    monkeypatch.setattr(kernels, "CHUNK", request.param)  # one row or one vocabulary entry at a time, and all at once


def leaf(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).requires_grad_()


def same_gradient(ours, theirs, leaves):
    weight = torch.linspace(-1, 2, len(ours))
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), leaves),
        torch.autograd.grad((theirs * weight).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_token_logp(chunk):
    z, y = leaf(N, V), torch.arange(N) % V
    ours, theirs = kernels.token_logp(z, y), -F.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(ours, theirs)
    same_gradient(ours, theirs, [z])


def test_token_logp_ignores_a_constant():
    z, y = leaf(N, V), torch.zeros(N, dtype=torch.long)
    torch.testing.assert_close(kernels.token_logp(z + 100, y), kernels.token_logp(z, y), atol=1e-4, rtol=1e-4)


def test_entropy(chunk):
    z = leaf(N, V)
    ours = kernels.entropy(z)
    torch.testing.assert_close(ours, torch.distributions.Categorical(logits=z).entropy())
    same_gradient(ours, -(z.softmax(-1) * z.log_softmax(-1)).sum(-1), [z])
    torch.testing.assert_close(kernels.entropy(torch.zeros(1, V)), torch.tensor([V]).log())


def test_kl_divergence(chunk):
    z, ref = leaf(N, V), leaf(N, V, seed=1).detach()
    ours = kernels.kl_divergence(z, ref)
    theirs = F.kl_div(z.log_softmax(-1), ref.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(ours, theirs)
    same_gradient(ours, theirs, [z])


def test_js_divergence(chunk):
    z, ref = leaf(N, V), leaf(N, V, seed=1).detach()
    p, q = z.softmax(-1), ref.softmax(-1)
    m = (p + q) / 2
    theirs = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
    ours = kernels.js_divergence(z, ref)
    torch.testing.assert_close(ours, theirs)
    same_gradient(ours, theirs, [z])


def test_unlikelihood(chunk):
    z, y = leaf(N, V), torch.arange(N) % V
    ours, theirs = kernels.unlikelihood(z, y), -(1 - z.softmax(-1)[torch.arange(N), y]).log()
    torch.testing.assert_close(ours, theirs)
    same_gradient(ours, theirs, [z])


def test_unlikelihood_has_the_gradient_of_cross_entropy_unlearning():
    """CE-U as it is published: cross-entropy against the model's own softmax without the label, held constant."""
    z, y = leaf(N, V), torch.arange(N) % V
    own = z.detach().clone()
    own[torch.arange(N), y] = -torch.inf
    same_gradient(kernels.unlikelihood(z, y), F.cross_entropy(z, own.softmax(-1), reduction="none"), [z])


@pytest.mark.parametrize("bias", [False, True])
def test_margin_of_linear(chunk, bias):
    leaves = [leaf(N, D), leaf(V, D, seed=1), *([leaf(V, seed=2)] if bias else [])]
    z = F.linear(*leaves)
    ours, theirs = kernels.margin_of_linear(*leaves), z.max(-1).values - z.mean(-1)
    torch.testing.assert_close(ours, theirs)
    same_gradient(ours, theirs, leaves)


def test_margin_at_a_tie_takes_the_first(chunk):
    w = torch.tensor([[1.0], [0.0], [0.0], [0.0], [1.0], [-2.0]]).requires_grad_()  # 4 rows a chunk: the tie spans two
    kernels.margin_of_linear(torch.ones(1, 1), w).sum().backward()
    torch.testing.assert_close(w.grad.flatten(), torch.tensor([5 / 6, *[-1 / 6] * 5]))


@pytest.mark.parametrize(
    "f",
    [
        lambda e: kernels.token_logp(e, torch.zeros(0, dtype=torch.long)),
        lambda e: kernels.kl_divergence(e, e.detach()),
        lambda e: kernels.js_divergence(e, e.detach()),
        kernels.entropy,
        lambda e: kernels.unlikelihood(e, torch.zeros(0, dtype=torch.long)),
    ],
)
def test_no_labelled_token_at_all(f):
    empty = torch.zeros(0, V, requires_grad=True)
    f(empty).sum().backward()
    assert empty.grad.shape == (0, V)
