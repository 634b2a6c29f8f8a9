"""Losses against numbers worked by hand; no model."""

from __future__ import annotations

import math

import pytest
import torch

from expunge import losses
from expunge.forward.view import ForwardPass


def seen(logp: list[list[float]], reference: list[list[float]] | None = None) -> ForwardPass:
    """A view of sequences whose tokens have the given log-probabilities."""

    def view(rows):
        flat = torch.tensor([v for r in rows for v in r], dtype=torch.float32)
        owner = torch.tensor([i for i, r in enumerate(rows) for _ in r])
        x = ForwardPass.from_token_logp(flat, torch.zeros(len(flat), dtype=torch.long), owner, len(rows))
        return x

    x = view(logp)
    if reference is not None:
        x._reference = lambda: view(reference)
    return x


def of_logits(rows: list[list[list[float]]], reference=None) -> ForwardPass:
    """A view of B sequences of T logit rows; every position but the last predicts a label 0."""
    z = torch.tensor([[*r, r[-1]] for r in rows], dtype=torch.float32)  # (B, T+1, V)
    labels = torch.zeros(z.shape[:2], dtype=torch.long)
    labels[:, 0] = -100
    return ForwardPass.from_logits(z, labels, reference=reference)


LN2 = math.log(2)


def test_nll_weighs_tokens_alike():
    x = seen([[math.log(1 / 2)], [math.log(1 / 8), math.log(1 / 8)]])
    # (ln 2 + 2 ln 8) / 3 = 7/3 ln 2, not the mean of the sequences' means, 2 ln 2
    assert losses.nll(x).item() == pytest.approx(7 / 3 * LN2)
    assert losses.gradient_ascent(x).item() == pytest.approx(-7 / 3 * LN2)


def test_npo_at_the_reference_is_two_over_beta_log_two():
    x = seen([[-1.0, -2.0]], [[-1.0, -2.0]])
    assert losses.npo(x, beta=0.1).item() == pytest.approx(20 * LN2)


def test_npo_by_hand():
    # log-ratios -10 and 0 at β = 0.1: -20 log σ(1) = 6.2652, -20 log σ(0) = 13.8629; mean 10.0641
    x = seen([[-6.0, -6.0], [-3.0]], [[-1.0, -1.0], [-3.0]])
    assert losses.npo(x, beta=0.1).item() == pytest.approx(10.0641, abs=1e-3)
    # batch mean of the log-ratios is -5: -20 log σ(0.5) = 9.4815
    assert losses.npo(x, beta=0.1, batch_mean=True).item() == pytest.approx(9.4815, abs=1e-3)


def test_npo_tends_to_gradient_ascent():
    """The gradient of NPO on the sequence log-probability is that of gradient ascent as β → 0."""
    logp = torch.tensor([-3.0], requires_grad=True)
    x = ForwardPass.from_token_logp(logp, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), 1)
    x._reference = lambda: seen([[-1.0]])
    (g,) = torch.autograd.grad(losses.npo(x, beta=1e-4), logp)
    assert g.item() == pytest.approx(1.0, abs=1e-3)


def test_simnpo_keeps_the_margin_outside_beta():
    x = seen([[-2.0, -4.0]])  # average NLL 3
    assert losses.simnpo(x, beta=4.5, margin=1.0).item() == pytest.approx(
        2 / 4.5 * math.log1p(math.exp(-12.5)), rel=1e-4
    )
    # OpenUnlearning's δ = 1 is margin = β: -2/4.5 log σ(9)
    assert losses.simnpo(x, beta=4.5, margin=4.5).item() == pytest.approx(
        2 / 4.5 * math.log1p(math.exp(-9.0)), rel=1e-4
    )


def test_dpo_by_hand():
    # chosen log-ratio +1, rejected -2, β = 0.5: -4 log σ(1.5) = 0.8057
    x, y = seen([[-4.0]], [[-2.0]]), seen([[-1.0]], [[-2.0]])
    assert losses.dpo(x, y, beta=0.5).item() == pytest.approx(0.8057, abs=1e-4)


def test_flattened_margin_by_hand():
    # margins: (3,0,0) -> 2, squared 4; (0,0,0) -> 0; (6,0,0) -> 4, squared 16
    x = of_logits([[[3.0, 0, 0], [0, 0, 0]], [[6.0, 0, 0], [6.0, 0, 0]]])
    assert losses.flattened_margin(x).item() == pytest.approx((2 + 16) / 2)
    assert losses.flattened_margin(x, token_average=True).item() == pytest.approx((4 + 0 + 16 + 16) / 4)


def test_flattened_margin_weighs_sequences_alike():
    z = torch.tensor([[[3.0, 0, 0]] * 4, [[6.0, 0, 0]] * 4])
    labels = torch.tensor([[-100, 0, 0, 0], [-100, 0, -100, -100]])
    x = ForwardPass.from_logits(z, labels)
    assert losses.flattened_margin(x).item() == pytest.approx((4 + 16) / 2)
    assert losses.flattened_margin(x, token_average=True).item() == pytest.approx((3 * 4 + 16) / 4)


def test_kl_by_hand():
    ref = of_logits([[[0.0, 0.0]]])  # (1/2, 1/2)
    x = of_logits([[[0.0, math.log(3)]]], reference=ref)  # (1/4, 3/4)
    assert losses.kl(x).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)
    same = of_logits([[[1.0, 2.0]]], reference=of_logits([[[1.0, 2.0]]]))
    assert losses.kl(same).item() == pytest.approx(0.0, abs=1e-6)


def test_js_by_hand_and_bounded():
    x = of_logits([[[0.0, math.log(3)]]], reference=of_logits([[[0.0, 0.0]]]))
    assert losses.js(x).item() == pytest.approx(0.033822, abs=1e-6)
    apart = of_logits([[[90.0, 0.0]]], reference=of_logits([[[0.0, 90.0]]]))
    assert losses.js(apart).item() == pytest.approx(LN2, rel=1e-6)


def test_weighted_ascent_by_hand():
    x = seen([[math.log(1 / 2)], [math.log(1 / 8)]])
    assert losses.wga(x).item() == pytest.approx(-0.4375 * LN2)
    assert losses.wga(x, beta=0.0).item() == pytest.approx(losses.gradient_ascent(x).item())
    half = seen([[math.log(1 / 2)]])
    assert losses.satimp(half).item() == pytest.approx(-LN2 / 64)
    assert losses.satimp(x, beta_saturation=1.0, beta_importance=0.0).item() == pytest.approx(losses.wga(x).item())


def test_the_weights_of_weighted_ascent_are_constants_to_the_gradient():
    logp = torch.log(torch.tensor([0.5, 0.25])).requires_grad_()
    x = ForwardPass.from_token_logp(logp, torch.zeros(2, dtype=torch.long), torch.tensor([0, 1]), 2)
    (g,) = torch.autograd.grad(losses.wga(x, beta=2.0), logp)
    torch.testing.assert_close(g, torch.tensor([0.25, 0.0625]) / 2)
    (g,) = torch.autograd.grad(losses.satimp(x, beta_saturation=1.0, beta_importance=2.0), logp)
    torch.testing.assert_close(g, torch.tensor([0.5 * 0.25, 0.25 * 0.5625]) / 2)


def test_undial_by_hand():
    x = of_logits([[[0.0, math.log(3)]]], reference=of_logits([[[10.0, 0.0]]]))
    assert losses.undial(x).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)


def test_undial_leaves_the_cached_reference_alone():
    reference = of_logits([[[10.0, 0.0]]])
    losses.undial(of_logits([[[0.0, 1.0]]], reference=reference))
    assert reference.logits.tolist() == [[10.0, 0.0]]


def test_ce_u_by_hand():
    first, second = [0.0, 0.0], [math.log(3), 0.0]  # p_y = 1/2, 3/4
    x = of_logits([[first, second]])
    assert losses.ce_u(x).item() == pytest.approx(math.log(4) / 2, rel=1e-6)
    assert losses.ce_u(x, ignore_first=0).item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)
    two = of_logits([[second, second], [second, second]])  # the first of each sequence, not of the batch
    assert losses.ce_u(two).item() == pytest.approx(math.log(4) / 2, rel=1e-6)


def test_ce_u_is_finite_where_the_probability_rounds_to_one():
    assert losses.ce_u(of_logits([[[200.0, 0.0]]]), ignore_first=0).item() == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("divergence", "value"),
    [("total_variation", -0.108599), ("kl", -0.027633), ("jensen_shannon", -0.086278), ("pearson", -0.234375)],
)
def test_flat_by_hand(divergence, value):
    x, y = seen([[math.log(1 / 4)]]), seen([[math.log(1 / 2)]])
    assert losses.flat(x, y, divergence=divergence).item() == pytest.approx(value, abs=1e-6)


def test_flat_takes_the_mean_probability_of_each_sequence():
    x = seen([[0.0, math.log(1 / 2)], [math.log(1 / 4)]])  # 3/4 and 1/4
    y = seen([[math.log(1 / 2)], [math.log(1 / 2)]])
    by_hand = sum(p * p / 4 + p - 0.5 for p in (0.75, 0.25)) / 2
    assert losses.flat(x, y, divergence="pearson").item() == pytest.approx(by_hand)


@pytest.mark.parametrize("divergence", sorted(losses.DIVERGENCES))
def test_flats_conjugates_are_the_convex_conjugates(divergence):
    """f*(u) = sup_t (u t - f(t)) of the divergence's generator f, on a grid, at u = g*(v)."""
    t = torch.linspace(1e-4, 30, 400_000, dtype=torch.float64)
    f = {
        "total_variation": (t - 1).abs() / 2,
        "kl": t * t.log(),
        "jensen_shannon": t * t.log() - (1 + t) * ((1 + t) / 2).log(),
        "pearson": (t - 1) ** 2,
    }[divergence]
    g, conjugate = losses.DIVERGENCES[divergence]
    for v in torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64):
        assert (g(v) * t - f).max().item() == pytest.approx(conjugate(v).item(), abs=1e-4)


def test_jensun_by_hand():
    """The refusal's two tokens are asked for in turn; the forget answer's own tokens play no part."""
    refusal = ForwardPass.from_logits(torch.zeros(1, 4, 3), torch.tensor([[-100, 1, 2, -100]]))
    third = [0.0, 0.0, 0.0]  # q = 1/3 whatever is asked for
    sure = [0.0, 0.0, 60.0]  # says 2
    assert losses.jensun(of_logits([[third] * 3]), refusal).item() == pytest.approx(0.318257, abs=1e-6)
    assert losses.jensun(of_logits([[sure] * 2]), refusal).item() == pytest.approx(LN2 / 2, abs=1e-6)  # ln 2, 0
    # asked for 1, 2, 1: ln 2, 0, ln 2
    assert losses.jensun(of_logits([[sure] * 3]), refusal).item() == pytest.approx(2 / 3 * LN2, abs=1e-6)


def test_jensun_takes_each_sequences_own_refusal():
    refusals = ForwardPass.from_logits(torch.zeros(2, 3, 3), torch.tensor([[-100, 1, 1], [-100, 2, -100]]))
    says_one, says_two = [[0.0, 60.0, 0.0]] * 2, [[0.0, 0.0, 60.0]] * 2
    assert losses.jensun(of_logits([says_one, says_two]), refusals).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.jensun(of_logits([says_two, says_one]), refusals).item() == pytest.approx(LN2, abs=1e-6)


def test_a_loss_that_reads_no_given_reference_says_so():
    with pytest.raises(RuntimeError, match="does not ask for one"):
        losses.npo(seen([[-1.0]]))
    with pytest.raises(RuntimeError, match="has no logits"):
        losses.kl(of_logits([[[0.0, 1.0]]], reference=seen([[-1.0]])))


@pytest.mark.parametrize("loss", [losses.nll, losses.simnpo, losses.flattened_margin, losses.satimp, losses.ce_u])
def test_a_constant_on_all_logits_changes_nothing(loss):
    rows = [[[3.0, 1.0, 0.0], [0.5, 2.0, 1.0]]]
    moved = [[[v + 50 for v in z] for z in r] for r in rows]
    assert loss(of_logits(moved)).item() == pytest.approx(loss(of_logits(rows)).item(), rel=1e-4)
