"""A model cut after a layer gives that layer's activations, and nothing above it runs or learns."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from expunge import losses
from expunge.errors import InputError
from expunge.forward.layers import decoder_layers, hidden_after
from expunge.forward.view import ForwardPass, see
from expunge.method import build
from expunge.methods.misdirection import outputs
from expunge.models import attach_lora, lora_targets, train_only

ROWS = tiny.examples(0, 4)


def deep():
    return tiny.model(num_hidden_layers=4)


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=tiny.V, n_embd=16, n_layer=3, n_head=2, n_positions=64, resid_pdrop=0, embd_pdrop=0)
    ).eval()


@pytest.mark.parametrize("make", [deep, gpt2, lambda: attach_lora(deep(), r=2, alpha=4)])
def test_activations_are_those_of_the_whole_model_at_real_tokens(make):
    model, b = make(), tiny.batch(ROWS)
    whole = model(**{k: b[k] for k in ("input_ids", "attention_mask")}, output_hidden_states=True).hidden_states
    for layer in range(2):
        hidden = hidden_after(model, b, layer)
        torch.testing.assert_close(hidden, whole[layer + 1][b["attention_mask"].bool()])
    assert len(decoder_layers(model)[2]) == len(whole) - 1  # put back


def test_no_layer_above_runs_or_gets_a_gradient():
    model, ran = deep(), []
    for k, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda *_, k=k: ran.append(k))
    see(model, tiny.batch(ROWS)).hidden(1).sum().backward()
    assert ran == [0, 1]
    assert all(p.grad is None for layer in model.model.layers[2:] for p in layer.parameters())
    assert model.model.layers[1].mlp.down_proj.weight.grad.abs().sum() > 0


def test_the_head_multiplies_nothing():
    model, b = deep(), tiny.batch(ROWS)
    with FlopCounterMode(display=False) as whole:
        model(input_ids=b["input_ids"], attention_mask=b["attention_mask"])
    with FlopCounterMode(display=False) as cut:
        hidden_after(model, b, 0)
    head = 2 * b["input_ids"].numel() * 16 * tiny.V
    layers = whole.get_total_flops() - head
    assert cut.get_total_flops() == pytest.approx(layers / 4, rel=0.01)


def test_a_broken_run_puts_the_model_together_again():
    model = deep()
    with pytest.raises(KeyError):
        hidden_after(model, {"attention_mask": torch.ones(1, 2)}, 0)
    assert len(model.model.layers) == 4 and "forward" not in vars(model.lm_head)


def test_a_layer_that_does_not_exist_is_told():
    with pytest.raises(InputError, match="layer 7 does not exist: the model has 2 layers, 0 to 1"):
        tiny.trainer(build("rmu", {"layer": 7}))


def test_prompts_count_and_padding_does_not():
    """Activations are read at every real token; a mean of a sequence is over those."""
    x = seen(torch.tensor([[1.0], [2.0], [6.0]]), [0, 0, 1])
    assert float(x.real_mean(torch.tensor([1.0, 2.0, 6.0]))) == (1.5 + 6) / 2


def seen(hidden, sequence):
    sequence = torch.tensor(sequence)
    own = ForwardPass(sequence, sequence, int(sequence.max()) + 1, None, real=sequence)
    return ForwardPass.from_activations(hidden, 0, own)


def test_steering_by_hand():
    x = seen(torch.tensor([[3.0], [5.0]]), [0, 0])
    assert float(losses.steering(x, layer=0, steering_coefficient=4.0)) == 1.0
    wide = seen(torch.zeros(1, 8), [0])  # |c u|^2 / D, for u of length one
    assert float(losses.steering(wide, layer=0, steering_coefficient=4.0)) == pytest.approx(16 / 8)
    one, other = (
        losses.steering(seen(torch.ones(1, 8), [0]), layer=0, steering_coefficient=4.0, seed=s) for s in (0, 1)
    )
    assert one != other


def test_activation_matching_by_hand():
    x, reference = seen(torch.tensor([[1.0, 2.0]]), [0]), seen(torch.tensor([[1.0, 4.0]]), [0])
    x._reference = lambda: reference
    assert float(losses.activation_matching(x, layer=0)) == 2.0


def test_a_reference_of_another_layer_is_refused():
    with pytest.raises(RuntimeError, match="after layer 0; the loss asked for 1"):
        seen(torch.zeros(1, 2), [0]).hidden(1)


# -- which weights train ----------------------------------------------------------------------------------------------------
def test_rmu_trains_the_down_projections_of_three_layers():
    model = deep()
    train_only(model, outputs(model, (1, 2, 3)))
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names == [f"model.layers.{k}.mlp.down_proj.weight" for k in (1, 2, 3)]
    assert lora_targets(model, outputs(model, (0, 1))) == {
        "target_modules": ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"],
        "target_parameters": [],
    }


def test_a_pattern_that_matches_nothing_or_is_none_is_told():
    with pytest.raises(InputError, match=r"trainable='gate_x' matches no weight .* model.embed_tokens.weight and "):
        train_only(deep(), "gate_x")
    with pytest.raises(InputError, match="is not a regular expression"):
        lora_targets(deep(), "(")
