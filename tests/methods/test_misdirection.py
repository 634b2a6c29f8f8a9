"""What RMU leaves to the model: its layer by depth, its coefficient by the activations' length, its weights by family."""

from __future__ import annotations

import statistics

import pytest
import tiny
import torch
from torch import nn

from expunge.errors import InputError
from expunge.forward.layers import hidden_after
from expunge.forward.view import ForwardPass, see
from expunge.method import build, fitted
from expunge.methods.misdirection import FACTOR, median_length, outputs


def batches():
    return [tiny.batch([tiny.example(i), tiny.example(i + 1)]) for i in (0, 2)]


def test_the_coefficient_is_a_multiple_of_the_median_activation():
    """By hand: the length of every real token's hidden state after layer 0, from transformers' own hidden states."""
    model = tiny.model().eval()
    lengths = []
    for i in range(4):
        ids = torch.tensor([tiny.example(i).input_ids])
        lengths += model(input_ids=ids, output_hidden_states=True).hidden_states[1][0].norm(dim=1).tolist()
    expected = statistics.median_low(lengths)
    assert median_length(model, batches(), 0) == pytest.approx(expected, rel=1e-5)
    made = fitted(build("rmu"), model, batches())
    assert made.chosen == {"layer": 0, "steering_coefficient": pytest.approx(FACTOR * expected, rel=1e-5)}
    assert made.objectives["forget"].loss.keywords["steering_coefficient"] == made.chosen["steering_coefficient"]
    assert made.parameters["steering_coefficient"] == "auto" and made.fit is None


def test_longer_activations_get_a_longer_target():
    long = tiny.model().eval()
    with torch.no_grad():
        long.get_input_embeddings().weight.mul_(1000)
        for p in (q for n, q in long.named_parameters() if "proj" in n):
            p.zero_()  # what an MLP adds does not grow with what it reads, which is normed
    of = [median_length(m, batches(), 0) for m in (tiny.model().eval(), long)]
    assert of[1] > 100 * of[0]


@pytest.mark.parametrize(("depth", "layer"), [(1, 0), (2, 0), (16, 4), (30, 7), (32, 7), (80, 18)])
def test_the_layer_is_at_the_depth_of_the_published_one(depth, layer):
    model = tiny.model(num_hidden_layers=depth).eval()
    assert fitted(build("blur_rmu", {"steering_coefficient": 3}), model, []).chosen["layer"] == layer


def test_what_is_given_stays():
    model = tiny.model().eval()
    made = fitted(build("rmu", {"layer": 1, "steering_coefficient": "6.5", "trainable": "q_proj"}), model, [])
    assert made.chosen == {"layer": 1, "steering_coefficient": 6.5} and made.trainable == "q_proj"
    with pytest.raises(InputError, match="layer 2 does not exist"):
        fitted(build("rmu", {"layer": 2}), model, batches())
    with pytest.raises(InputError, match="steering_coefficient='much' does not fit"):
        build("rmu", {"steering_coefficient": "much"})


def test_an_unknown_family_is_asked_for_its_weights():
    model = tiny.model()
    for layer in model.model.layers:
        layer.mlp = nn.Sequential(nn.Linear(16, 16))
    with pytest.raises(InputError, match=r"it is not known which weights of LlamaModel .* mlp\.0\.weight"):
        outputs(model, [0])


def test_the_trainer_fits_a_method_that_was_not():
    trainer = tiny.trainer(build("rmu"))
    assert trainer.method.chosen["layer"] == 0 and trainer.method.fit is None


def test_the_positions_of_the_public_code_are_the_labelled_tokens():
    """By hand, from transformers' hidden states: both losses over all real tokens, and over the labelled ones alone."""
    model, other = tiny.model().eval(), tiny.model(seed=1).eval()
    rows = [tiny.example(0), tiny.example(1)]
    batch = tiny.batch(rows)

    def hidden(of, row):
        return of(input_ids=torch.tensor([row.input_ids]), output_hidden_states=True).hidden_states[1][0]

    for positions in ("all", "answer_unshifted"):
        made = build("rmu", {"layer": 0, "steering_coefficient": 2.0, "positions": positions})
        steer, match = made.objectives["forget"], made.objectives["retain"]
        x = see(model, batch, positions=steer.positions, reference=lambda: None)
        ref = ForwardPass.from_activations(hidden_after(other, batch, 0), 0, x)
        x._reference = lambda ref=ref: ref
        u = torch.rand(16, generator=torch.Generator().manual_seed(0))
        target = 2.0 * u / u.norm()
        steered, matched = [], []
        for row in rows:
            kept = [i for i, y in enumerate(row.labels) if positions == "all" or y != -100]
            assert positions == "all" or 0 < len(kept) < len(row.input_ids)
            h, r = hidden(model, row)[kept], hidden(other, row)[kept]
            steered.append((h - target).square().mean())
            matched.append((h - r).square().mean())
        assert float(steer.loss(x).detach()) == pytest.approx(float(sum(steered).detach() / 2), rel=1e-5)
        assert float(match.loss(x).detach()) == pytest.approx(float(sum(matched).detach() / 2), rel=1e-5)


def test_training_takes_those_positions_too():
    """With the reference's activations from the cache: the first step's loss is that of the labelled tokens."""
    found = {}
    for positions in ("all", "answer_unshifted"):
        made = build("rmu", {"layer": 0, "steering_coefficient": 2.0, "positions": positions})
        trainer = tiny.trainer(made, max_steps=2)
        trainer.train()
        found[positions] = [s["loss/retain"] for s in trainer.state.log_history if "loss/retain" in s]
    assert found["all"][0] == found["answer_unshifted"][0] == 0.0  # nothing has moved yet
    assert 0 < found["all"][1] != found["answer_unshifted"][1] > 0
