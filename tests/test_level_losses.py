"""Losses with an end, against numbers worked by hand; no model."""

from __future__ import annotations

import math

import pytest
import torch

from expunge import level_losses, losses
from expunge.forward.view import ForwardPass

LN2 = math.log(2)


def test_weighted_ascent_with_a_level_by_hand():
    """Tokens with probability 1/2 and 1/8 under the level 1/4: the second is forgotten, and has no gradient."""
    labels, sequence = torch.tensor([0, 0]), torch.tensor([0, 0])
    logp = torch.log(torch.tensor([0.5, 0.125])).requires_grad_()
    level = ForwardPass.from_token_logp(torch.log(torch.tensor([0.25, 0.25])), labels, sequence, 1)
    x = ForwardPass(labels, sequence, 1, lambda _: ("logits", logp), reference=lambda: level)
    x.__dict__["token_logp"] = logp
    loss = level_losses.above_level(x, loss=losses.wga)
    assert loss.item() == pytest.approx(-0.5 * LN2 / 2)
    (g,) = torch.autograd.grad(loss, logp)
    assert g.tolist() == pytest.approx([0.25, 0.0])


def level_view(probabilities, levels):
    """One row of tokens with two-way logits whose first way has these probabilities, and their levels."""
    own, there = (torch.tensor(p, dtype=torch.float64) for p in (probabilities, levels))
    logits = torch.stack([own, 1 - own], -1).log().float().requires_grad_()
    labels, sequence = torch.zeros(len(own), dtype=torch.long), torch.zeros(len(own), dtype=torch.long)
    level = ForwardPass.from_token_logp(there.log().float(), labels, sequence, 1, entropy=of_a_coin(there).float())
    return logits, ForwardPass(labels, sequence, 1, lambda _: ("logits", logits), reference=lambda: level)


def of_a_coin(p):
    """Its entropy."""
    return torch.distributions.Bernoulli(p).entropy()


def test_divergence_to_a_level_by_hand():
    logits, x = level_view([0.5], [0.25])
    loss = level_losses.level_divergence(x)
    assert loss.item() == pytest.approx(0.25 * math.log(3), abs=2e-4)
    (g,) = torch.autograd.grad(loss, logits)
    assert g[0].tolist() == pytest.approx([0.25 + 0.25 * math.log(3), -0.25 - 0.25 * math.log(3)], abs=1e-3)


@pytest.mark.parametrize("loss", [level_losses.level_divergence, level_losses.level_distance])
def test_a_pull_to_a_level_has_its_bottom_there_and_two_sides(loss):
    logits, x = level_view([0.3, 1e-5], [0.3, 1e-5])
    (g,) = torch.autograd.grad(loss(x), logits)
    assert loss(x).item() == pytest.approx(0, abs=1e-8) and g.abs().max() < 1e-5
    logits, x = level_view([0.9, 0.1], [0.5, 0.5])
    (g,) = torch.autograd.grad(loss(x), logits)
    assert g[0, 0] > 0 > g[1, 0]


SURER = math.log(2) - (0.75 * math.log(4 / 3) + 0.25 * math.log(4))  # entropy of 1/2, less that of 1/4
HALF_TO_A_QUARTER = math.sqrt(0.25 * math.log(3) + 0.1 * (math.log(3) - 0.5) + 0.15 * SURER**2 + 1e-4) - 0.01


def test_distance_to_a_level_by_hand():
    _, x = level_view([0.5], [0.25])
    assert level_losses.level_distance(x).item() == pytest.approx(HALF_TO_A_QUARTER, abs=2e-4)


def test_a_row_is_pulled_as_hard_next_to_its_level_as_far_from_it():
    """The divergence pulls a hundredth as hard at a hundredth of the distance; its root nine tenths, ε being 0.01."""

    def pull(loss, probability):
        logits, x = level_view([probability], [0.5])
        (g,) = torch.autograd.grad(loss(x), logits)
        return g[0, 0].item()

    assert pull(level_losses.level_divergence, 0.51) / pull(level_losses.level_divergence, 0.75) < 0.05
    assert pull(level_losses.level_distance, 0.51) / pull(level_losses.level_distance, 0.75) > 0.8


def test_tokens_that_are_rare_on_both_sides_are_pulled_too():
    """From a thousandth to a hundredth of that: 4.6 nats that the divergence does not see."""

    def share(loss):
        """Of the force on the rare token in that on the one known by heart beside it."""
        logits, x = level_view([1e-3, 0.999], [1e-5, 0.5])
        (g,) = torch.autograd.grad(loss(x), logits)
        return (g[0, 0] / g[1, 0]).item()

    assert share(level_losses.level_divergence) < 0.02 < 0.1 < share(level_losses.level_distance) < 0.2


def test_a_prediction_is_drawn_to_be_as_sure_as_the_level_is():
    """A token as likely as its level, whose other two tokens share the rest evenly: they are to share it unevenly."""
    labels, sequence = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    sure, even = (torch.tensor(p) for p in ([0.2, 0.75, 0.05], [0.2, 0.401, 0.399]))
    at = torch.distributions.Categorical(sure).entropy()[None]
    level = ForwardPass.from_token_logp(sure[:1].log(), labels, sequence, 1, entropy=at)
    logits = even.log()[None].requires_grad_()
    x = ForwardPass(labels, sequence, 1, lambda _: ("logits", logits), reference=lambda: level)
    (g,) = torch.autograd.grad(level_losses.level_distance(x), logits)
    assert g[0, 1] < 0 < g[0, 0]  # the greater of the two rises, and it is not the forget token that does


def test_each_row_has_a_root_of_its_own():
    """Two rows, one at its level: half of the other's distance, not the root of half of its divergence."""
    labels = torch.zeros(2, dtype=torch.long)
    quarter = torch.tensor([0.25, 0.25])
    level = ForwardPass.from_token_logp(quarter.log(), labels, torch.tensor([0, 1]), 2, entropy=of_a_coin(quarter))
    logits = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    x = ForwardPass(labels, torch.tensor([0, 1]), 2, lambda _: ("logits", logits), reference=lambda: level)
    assert level_losses.level_distance(x).item() == pytest.approx(HALF_TO_A_QUARTER / 2, abs=2e-4)


def test_a_token_known_by_heart_is_pushed():
    """Where 1 - p is nothing in float32, too."""
    labels, sequence = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    level = ForwardPass.from_token_logp(torch.tensor([-3.0]), labels, sequence, 1)
    logits = torch.tensor([[30.0, 0.0]], requires_grad=True)
    x = ForwardPass(labels, sequence, 1, lambda _: ("logits", logits), reference=lambda: level)
    value = level_losses.level_divergence(x)
    assert value.item() == pytest.approx((1 - math.exp(-3)) * (math.log(1e4) + math.log(math.exp(3) - 1)), rel=1e-3)
    (slope,) = torch.autograd.grad(value, x.token_logp)
    assert slope.item() == pytest.approx((1 - math.exp(-3)) * 1e4, rel=2e-2)


def predictions_view(probabilities, levels, likeliest, labels=(0,)):
    """One row of tokens with these probabilities of each word, and the ``likeliest`` words of the level's."""
    own, there = (torch.tensor(p, dtype=torch.float64) for p in (probabilities, levels))
    logits = own.log().float().requires_grad_()
    words, labels = torch.tensor(likeliest), torch.tensor(labels)
    at = there.log().float()
    level = ForwardPass.from_token_logp(
        at.gather(1, labels[:, None])[:, 0], labels, torch.zeros_like(labels), 1, likeliest=(words, at.gather(1, words))
    )
    return logits, ForwardPass(
        labels, torch.zeros_like(labels), 1, lambda _: ("logits", logits), reference=lambda: level
    )


def test_distance_of_predictions_by_hand():
    logits, x = predictions_view([[0.5, 0.5]], [[0.25, 0.75]], [[1, 0]])
    divergence = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    expected = math.sqrt(divergence + 0.3 * (math.log(3) - 0.5) + 1e-4) - 0.01
    assert level_losses.level_distance(x).item() == pytest.approx(expected, abs=2e-4)
    logits, x = predictions_view([[0.25, 0.75]], [[0.25, 0.75]], [[1, 0]])
    (g,) = torch.autograd.grad(level_losses.level_distance(x), logits)
    assert g.abs().max() < 1e-5


def test_the_words_that_are_not_among_the_likeliest_are_one():
    """Of four words the level's likeliest one is kept: how the other three share the rest does not matter, but for the
    answer's, word 0, which has a distance of its own."""
    _, x = predictions_view([[0.2, 0.4, 0.3, 0.1]], [[0.2, 0.6, 0.1, 0.1]], [[1]])
    divergence = 0.6 * math.log(0.6 / 0.4) + 0.4 * math.log(0.4 / 0.6)
    assert level_losses.level_distance(x).item() == pytest.approx(math.sqrt(divergence + 1e-4) - 0.01, abs=1e-5)
    _, x = predictions_view([[0.2, 0.6, 0.05, 0.15]], [[0.2, 0.6, 0.1, 0.1]], [[1]])
    assert level_losses.level_distance(x).item() == pytest.approx(0, abs=1e-6)


def test_the_model_is_drawn_to_say_what_the_level_says():
    """A token as likely as its level: of the other words the level's is to rise and the model's own to fall."""
    logits, x = predictions_view([[0.2, 0.7, 0.1]], [[0.2, 0.1, 0.7]], [[2, 0, 1]])
    (g,) = torch.autograd.grad(level_losses.level_distance(x), logits)
    assert g[0, 2] < -0.1 and g[0, 1] > 0.1 and abs(g[0, 0]) < 1e-4


def test_an_unlikely_answer_is_pulled_the_rest_of_the_way():
    """From a thousandth to a hundredth of that, the rest of the prediction as it should be."""
    near = [[1e-3, 0.899, 0.1]], [[1e-5, 0.89999, 0.1]]
    logits, x = predictions_view(*near, [[1, 2]])
    (g,) = torch.autograd.grad(level_losses.level_distance(x), logits)
    assert g[0, 0] > 0.05  # of the divergence alone it would be less than a hundredth of that
