"""The norms that come from inputs and output gradients are those of gradients that plain autograd makes."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from expunge.evaluation.collect import gradient
from expunge.evaluation.collect.gradient import factored_norm, fastest_norm, grad_norm

SHORT = ([1, 5, 0, 5], [7, 5, 9])  # a token twice, one in prompt and text, and 0, which is the tiny model's padding
LONG = ([1, 2, 3], [3 + (7 * i) % 29 for i in range(40)])
ONE = ([4], [6])
TEXTS = {"short": SHORT, "long": LONG, "one": ONE}


def by_hand(model, prompt, text):
    """Every gradient whole, by one backward over a loop of log-probabilities."""
    model.requires_grad_(True).zero_grad()
    logp = model(torch.tensor([[*prompt, *text]])).logits[0].log_softmax(-1)
    (-sum(logp[len(prompt) + t - 1, y] for t, y in enumerate(text)) / len(text)).backward()
    norms = [0.0 if p.grad is None else float(p.grad.double().square().sum().sqrt()) for p in model.parameters()]
    model.zero_grad()
    return sum(norms) / len(norms)


def gpt2():
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": tiny.V}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=0))


def lora():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules=["q_proj", "down_proj"], lora_dropout=0.1))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    return model


def shared():
    """A layer that is run twice."""
    model = tiny.model()
    model.model.layers[1].mlp = model.model.layers[0].mlp
    return model


MODELS = {
    "untied": tiny.model,
    "tied": lambda: tiny.model(tie_word_embeddings=True),
    "biases": lambda: tiny.model(attention_bias=True, mlp_bias=True),
    "gpt2": gpt2,
    "lora": lora,
    "shared": shared,
}


class Sizes(TorchDispatchMode):
    """The elements of every tensor that is made while it is open, views of the model's own weights left out."""

    def __init__(self, model=None):
        super().__init__()
        self.sizes = []
        self.own = {p.untyped_storage().data_ptr() for p in model.parameters()} if model else set()

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        some = [t for t in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(t, torch.Tensor)]
        self.sizes += [t.numel() for t in some if t.untyped_storage().data_ptr() not in self.own]
        return out


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", MODELS)
def test_both_ways_give_what_autograd_gives(kind, text):
    model = MODELS[kind]().eval()
    expected = by_hand(model, *TEXTS[text])
    model.requires_grad_(False)
    assert fastest_norm(model, [TEXTS[text]]) is factored_norm
    assert factored_norm(model, *TEXTS[text]) == pytest.approx(expected, rel=1e-5)
    assert grad_norm(model, *TEXTS[text]) == pytest.approx(expected, rel=1e-5)


def test_what_is_measured_from_factors():
    def names(model):
        found = gradient._factored(model)
        return {n for n, p in model.named_parameters() if p in found}

    assert len(names(tiny.model())) == 2 + 2 * 7  # both embeddings, and a layer's q, k, v, o, gate, up and down
    assert len(names(tiny.model(tie_word_embeddings=True, attention_bias=True))) == 1 + 2 * 7
    assert names(gpt2()) == {"transformer.wte.weight", "transformer.wpe.weight"}  # its other layers are no nn.Linear
    assert len(names(lora())) == 2 + 2 * 7 + 2 * 2 * 2
    clipped = tiny.model(tie_word_embeddings=True)
    clipped.model.embed_tokens.max_norm = 1.0
    assert len(names(clipped)) == 2 * 7  # nor the head, which has the same weight


def test_a_hand_worked_layer_and_embedding():
    head, table = nn.Linear(2, 3, bias=False), nn.Embedding(3, 2, padding_idx=2)
    used = (head, torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]]]))
    # dᵀa = [[3, 8], [0, 0], [1, 0]]; rows 0 and 1 of the table get (1, 0) + (0, 1) and (2, 2), row 2 is padding
    looked_up = (table, torch.tensor([[0, 1, 0, 2]]), torch.tensor([[[1.0, 0.0], [2.0, 2.0], [0.0, 1.0], [9.0, 9.0]]]))
    assert float(gradient._norm([used])) == pytest.approx(math.sqrt(9 + 64 + 1))
    assert float(gradient._norm([looked_up])) == pytest.approx(math.sqrt(1 + 1 + 4 + 4))
    assert float(gradient._norm([used, looked_up])) == pytest.approx(math.sqrt(16 + 81 + 4 + 4 + 1))


def test_tokens_that_cancel_lose_no_digits():
    a = torch.ones(2, 64)
    d = torch.tensor([[1.0], [-0.9997]]).expand(2, 64)  # every element of dᵀa is 0.0003; its square is lost in 1 - 1
    left = 1.0 + float(d[1, 0])
    assert float(gradient._square(a, d).sqrt()) == pytest.approx(64 * left, rel=1e-5)


def test_uses_of_a_tied_weight_that_cancel_leave_a_number():
    head, table = nn.Linear(64, 3, bias=False), nn.Embedding(3, 64)
    for x in torch.randn(20, 1, 64):
        norm = gradient._norm([(head, x, torch.tensor([[1.0, 0.0, 0.0]])), (table, torch.tensor([0]), -x)])
        assert float(norm) == pytest.approx(0, abs=1e-2)  # from squares of 64, in fp32; never the root of less than 0


def test_a_long_text_takes_the_gradient_rather_than_a_product_of_all_its_pairs():
    a, d = torch.randn(200, 16), torch.randn(200, 24)
    with Sizes() as sizes:
        square = gradient._square(a, d)
    assert max(sizes.sizes) < 200 * 200
    assert float(square) == pytest.approx(float((d.double().T @ a.double()).square().sum()), rel=1e-5)


def test_a_call_that_the_loss_does_not_depend_on_counts_for_nothing():
    model = tiny.model().eval()
    model.model.layers[0].mlp.register_forward_hook(lambda mlp, _, __: (mlp.down_proj(torch.ones(1, 32)), None)[1])
    assert factored_norm(model, *SHORT) == pytest.approx(by_hand(model, *SHORT), rel=1e-5)


@pytest.mark.parametrize("measure", [grad_norm, factored_norm])
def test_the_model_is_left_as_it_was(measure):
    model = tiny.model(tie_word_embeddings=True).eval()
    weights = dict(model.named_parameters())
    for i, p in enumerate(weights.values()):
        p.requires_grad_(i % 2 == 0)
        p.grad = torch.full_like(p, i) if i % 3 == 0 else None
    before = {n: (p.requires_grad, None if p.grad is None else p.grad.clone()) for n, p in weights.items()}

    def check():
        for n, p in weights.items():
            trains, grad = before[n]
            assert p.requires_grad == trains
            assert (p.grad is None) if grad is None else torch.equal(p.grad, grad)
            assert not p._post_accumulate_grad_hooks
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    with torch.no_grad():
        measure(model, *SHORT)
    check()
    with pytest.raises(IndexError):
        measure(model, [1, 2], [tiny.V + 5, 3])
    check()


@pytest.mark.parametrize("measure", [grad_norm, factored_norm])
def test_a_text_of_no_token_has_no_norm(measure):
    assert measure(tiny.model(), [1, 2], []) == 0.0


def test_a_weight_that_is_used_without_its_layer_is_measured_whole():
    model = tiny.model().eval()
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x: functional.linear(mlp.up_proj(x) * mlp.act_fn(mlp.gate_proj(x)), mlp.down_proj.weight)
    assert factored_norm(model, *SHORT) < grad_norm(model, *SHORT) * 0.999
    assert fastest_norm(model, [LONG, ([1], []), SHORT]) is grad_norm


def test_a_model_that_changes_its_embeddings_in_place_is_measured_whole():
    model = tiny.model().eval()
    model.model.layers[0].register_forward_pre_hook(lambda _, args: (args[0].mul_(2), *args[1:]))
    assert fastest_norm(model, [SHORT]) is grad_norm


def test_a_hook_of_the_users_own_is_part_of_the_model():
    model = tiny.model().eval()
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda _, __, out: out * 3)
    assert factored_norm(model, *SHORT) == pytest.approx(by_hand(model, *SHORT), rel=1e-5)


def test_a_layer_that_is_called_by_keyword():
    model = tiny.model().eval()
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x: mlp.down_proj(input=mlp.up_proj(x) * mlp.act_fn(mlp.gate_proj(x)))
    assert factored_norm(model, *SHORT) == pytest.approx(by_hand(model, *SHORT), rel=1e-5)


def test_a_layer_with_a_class_of_its_own_is_measured_whole():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = tiny.model().eval()
    model.model.layers[0].mlp.down_proj.__class__ = Twice
    assert model.model.layers[0].mlp.down_proj.weight not in gradient._factored(model)
    assert factored_norm(model, *SHORT) == pytest.approx(by_hand(model, *SHORT), rel=1e-5)


def test_half_precision_is_measured_in_single():
    model = tiny.model(tie_word_embeddings=True).eval().bfloat16()
    head = model.lm_head
    norm = gradient._norm([(head, torch.full((1, 3, 16), 1.0).bfloat16(), torch.full((1, 3, 32), 1e-3).bfloat16())])
    assert norm.dtype == torch.float32
    assert factored_norm(model, *SHORT) == pytest.approx(by_hand(model.float(), *SHORT), rel=0.02)


def test_a_gradient_is_let_go_before_the_next():
    model = tiny.model().eval()
    alive = []
    for p in model.parameters():
        p.register_hook(lambda _: alive.append(sum(q.grad is not None for q in model.parameters())))
    grad_norm(model, *SHORT)
    assert len(alive) == len(list(model.parameters())) and max(alive) == 0


def test_without_texts_there_is_nothing_to_compare():
    assert fastest_norm(tiny.model(), []) is fastest_norm(tiny.model(), [([1], [])]) is grad_norm


def test_no_tensor_is_as_large_as_a_weights_gradient():
    model = tiny.model(vocab_size=512, hidden_size=64, intermediate_size=128, tie_word_embeddings=True).eval()
    with Sizes(model) as sizes:
        factored_norm(model, *SHORT)
    assert max(sizes.sizes) < 64 * 64  # the smallest matrix
    with Sizes(model) as sizes:
        grad_norm(model, *SHORT)
    assert max(sizes.sizes) >= 512 * 64
