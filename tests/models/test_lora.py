"""LoRA arithmetic against dense matrices, by hand, and against PEFT's own merge."""

from __future__ import annotations

import copy
import functools
import warnings

import pytest
import torch
from tiny_lora import lora
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from expunge.errors import InputError
from expunge.models import adapted, add, attach_lora, detach_lora
from expunge.models.lora import (
    Adapter,
    compress,
    concatenate,
    negate,
    orthogonality,
    rank_of,
    scaled,
    start_of,
)

IDS = torch.tensor([[3, 7, 1, 9, 4, 2, 8]])


def llama(tied: bool = False):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
            tie_word_embeddings=tied,
            initializer_range=0.5,
        )
    ).eval()


def gpt2():
    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 16}
    return GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).eval()


def make_adapter(
    seed: int, r: int, out: int = 6, width: int = 5, alpha: float = 3.0, modules: tuple[str, ...] = ("m",)
):
    g = torch.Generator().manual_seed(seed)
    state = {}
    for m in modules:
        state[f"base_model.model.{m}.lora_A.weight"] = torch.randn(r, width, generator=g)
        state[f"base_model.model.{m}.lora_B.weight"] = torch.randn(out, r, generator=g)
    return Adapter(state, {"r": r, "lora_alpha": alpha, "peft_type": "LORA"})


def dense(adapter: Adapter, module: str = "m") -> torch.Tensor:
    """The update by its definition: alpha / r · B A."""
    key = f"base_model.model.{module}.lora_{{}}.weight"
    a, b = (adapter.state[key.format(side)] for side in "AB")
    return adapter.config["lora_alpha"] / a.shape[0] * b @ a


random_lora = functools.partial(lora, seed=1, r=3, lora_alpha=5)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


# -- arithmetic -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("factor", [-1.0, 0.3, 0.0])
def test_scaled_scales_the_update_not_both_factors(factor):
    adapter = make_adapter(0, 2)
    torch.testing.assert_close(dense(scaled(adapter, factor)), factor * dense(adapter))
    nothing = concatenate(adapter, scaled(adapter, -1.0))
    torch.testing.assert_close(dense(nothing), torch.zeros(6, 5), atol=1e-6, rtol=0)


def test_what_cannot_be_combined_cannot_be_scaled():
    adapter = make_adapter(0, 2)
    with pytest.raises(InputError, match="use_dora"):
        scaled(Adapter(adapter.state, dict(adapter.config) | {"use_dora": True}), -1.0)


def test_compression_by_hand():
    state = {"m.lora_A.weight": torch.eye(2), "m.lora_B.weight": torch.diag(torch.tensor([3.0, 4.0]))}
    one, lost = compress(Adapter(state, {"r": 2, "lora_alpha": 2}), 1)
    product = one.state["base_model.model.m.lora_B.weight"] @ one.state["base_model.model.m.lora_A.weight"]
    torch.testing.assert_close(product, torch.diag(torch.tensor([0.0, 4.0])))
    assert lost.overall == pytest.approx(0.6) and lost.modules["m"] == pytest.approx(0.6)
    assert one.config["r"] == one.config["lora_alpha"] == 1


@pytest.mark.parametrize(("out", "width"), [(30, 20), (4, 20), (20, 4)])
def test_compression_is_the_dense_svds(out, width):
    """Shapes below, at and above the rank; two modules of different sizes, so the overall error weighs them."""
    adapter = make_adapter(3, 8, out, width, modules=("m", "n"))
    adapter = Adapter({k: (0.2 * v if ".n.lora_B" in k else v) for k, v in adapter.state.items()}, adapter.config)
    small, lost = compress(adapter, 3)
    tails, wholes = [], []
    for module in "mn":
        full = dense(adapter, module)
        u, s, v = torch.linalg.svd(full, full_matrices=False)
        torch.testing.assert_close(dense(small, module), u[:, :3] * s[:3] @ v[:3], atol=1e-4, rtol=1e-4)
        assert lost.modules[module] == pytest.approx(float(s[3:].norm() / s.norm()), rel=1e-4)
        error = float((dense(small, module) - full).norm() / full.norm())
        assert lost.modules[module] == pytest.approx(error, rel=1e-3)
        tails.append(s[3:].square().sum())
        wholes.append(s.square().sum())
    assert lost.overall == pytest.approx(float((sum(tails) / sum(wholes)).sqrt()), rel=1e-4)
    assert rank_of(small) == 3


def test_full_rank_is_exact_and_zero_loses_nothing():
    adapter = make_adapter(0, 4)
    same, lost = compress(adapter, 4)
    assert same is adapter and lost.overall == 0 and lost.modules == {"m": 0.0}
    zero, lost = compress(scaled(adapter, 0.0), 2)
    assert lost.overall == 0 and not dense(zero).any()
    # a sum of two like adapters has rank 4 in 8 rows: rank 4 is enough
    twice = concatenate(adapter, scaled(adapter, 0.5))
    half, lost = compress(twice, 4)
    torch.testing.assert_close(dense(half), 1.5 * dense(adapter), atol=1e-5, rtol=1e-4)
    assert lost.overall < 1e-6


def test_the_penalty_and_its_gradient():
    old, new = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, -1.0]], requires_grad=True)
    value = orthogonality([(old, new)])
    assert value.item() == 5.0  # |3| + |-2|
    value.backward()
    assert new.grad.tolist() == [[1.0, 2.0], [-1.0, -2.0]]  # sign(A_r A_fᵀ)ᵀ A_r
    assert orthogonality([(old, new), (2 * old, new)]).item() == 15.0
    assert orthogonality([]).item() == 0.0
    other = torch.tensor([[2.0, -1.0]])
    assert orthogonality([(old, other)]).item() == 0.0


def test_the_penalty_is_in_fp32_under_autocast():
    g = torch.Generator().manual_seed(0)
    old, new = torch.randn(4, 64, generator=g), torch.randn(4, 64, generator=g)
    plain = (old @ new.T).abs().sum()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(orthogonality([(old, new)]), plain)


# -- a model's weights ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", [llama, gpt2])
def test_adding_is_what_peft_merges(model):
    wrapped = random_lora(model())
    expected = logits(copy.deepcopy(wrapped).merge_and_unload())
    plain, adapter = detach_lora(wrapped)
    assert torch.equal(logits(plain), logits(model()))
    add(plain, adapter)
    torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=1e-5)
    assert (expected - logits(model())).abs().max() > 0.05


def test_adding_and_taking_away_leaves_round_off():
    plain, adapter = detach_lora(random_lora(llama()))
    start = {n: p.detach().clone() for n, p in plain.named_parameters()}
    add(plain, adapter)
    add(plain, scaled(adapter, -1.0))
    for name, p in plain.named_parameters():
        torch.testing.assert_close(p.detach(), start[name], atol=3e-7, rtol=0)


def test_a_detached_model_is_plain_and_takes_the_next_adapter():
    first = attach_lora(llama(), r=2, seed=1)
    plain, adapter = detach_lora(first)
    assert not [n for n, _ in plain.named_modules() if "lora" in n] and not hasattr(plain, "peft_config")
    assert rank_of(adapter) == 2 and all(v.device.type == "cpu" for v in adapter.state.values())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)  # PEFT's, for a second adapter on one model
        again = attach_lora(plain, r=2, seed=1)
    _, same = detach_lora(again)
    assert same.config == adapter.config
    assert all(torch.equal(v, adapter.state[k]) for k, v in same.state.items())


@pytest.mark.parametrize(
    ("target", "tied", "message"),
    [("lm_head", True, "uses twice"), ("embed_tokens", False, "no factor of a linear layer")],
)
def test_what_cannot_be_added_to_weights(target, tied, message):
    plain, adapter = detach_lora(attach_lora(llama(tied), target_modules=[target, "q_proj"]))
    with pytest.raises(InputError, match=message):
        adapted(plain, adapter)


def test_weights_in_another_format_stay_and_the_update_acts_as_pefts():
    wrapped = attach_lora(llama().to(torch.bfloat16), r=2)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        peft = wrapped.eval()(ids).logits
        plain, adapter = detach_lora(wrapped)
        before = {name: p.clone() for name, p in plain.named_parameters()}
        start = plain(ids).logits
        add(plain, adapter)
        added = plain(ids).logits
    assert all(torch.equal(p, before[name]) for name, p in plain.named_parameters())
    assert (added - start).abs().max() > 20 * (added - peft).abs().max()
    add(plain, adapter)  # a second step comes on top
    with torch.no_grad():
        assert not torch.equal(plain(ids).logits, added)


# -- negation in place ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tied", [False, True])
def test_weights_that_moved_go_the_same_way_back(tied):
    m = llama(tied)
    m.model.layers[0].self_attn.q_proj.weight.requires_grad_(False)
    before = copy.deepcopy(m.state_dict())
    start = start_of(m)
    with torch.no_grad():
        for name, p in m.named_parameters():
            if p.requires_grad:
                p.add_(2.0 if name.endswith("norm.weight") else 1.0)
    negate(m, start, 0.5)
    for name, value in m.state_dict().items():
        moved = 0.0 if "layers.0.self_attn.q_proj" in name else 1.0 if name.endswith("norm.weight") else 0.5
        torch.testing.assert_close(value, before[name] - moved)
    assert len(start) == len(list(m.parameters())) - 1


def test_lora_is_turned_round_in_one_factor():
    plain = llama()
    m = random_lora(copy.deepcopy(plain))
    assert start_of(m) == {}
    learnt = copy.deepcopy(m).merge_and_unload().state_dict()
    negate(m, {}, 0.5)
    for name, value in m.merge_and_unload().state_dict().items():
        base = plain.state_dict()[name]
        torch.testing.assert_close(value, base - 0.5 * (learnt[name] - base), atol=1e-6, rtol=1e-5)
