"""LoRA on a model that was loaded: adapters of any kind load as PEFT has them, and two in a row are one."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, TrainableTokensConfig, get_peft_model
from tiny_lora import logits, lora, tiny, words
from transformers import (
    AutoModelForCausalLM,
)

from expunge.errors import InputError
from expunge.models import attach_lora, load, save, trainable
from expunge.models.lora import Adapter, concatenate, read_adapter, scaling


def test_lora_starts_as_the_same_function_with_fp32_factors() -> None:
    model = attach_lora(tiny().to(torch.bfloat16), r=2, alpha=4)
    factors = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(factors) == 2 * 7 * 2 and all("lora_" in name for name in factors)
    assert {p.dtype for p in factors.values()} == {torch.float32}
    assert torch.equal(logits(model.eval()), logits(tiny().to(torch.bfloat16)))


def test_lora_depends_on_its_seed_only() -> None:
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight"
    plain = [tiny(), tiny(), tiny()]
    torch.manual_seed(5)
    first = attach_lora(plain[0], seed=1).state_dict()[name]
    drawn = torch.rand(1)
    assert torch.equal(first, attach_lora(plain[1], seed=1).state_dict()[name])
    assert not torch.equal(first, attach_lora(plain[2], seed=2).state_dict()[name])
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)  # the global random state was left alone


def test_trainable_counts_by_hand() -> None:
    # q: 8x8, rank 2 -> 2*8 + 8*2 = 32; two layers -> 64
    assert trainable(attach_lora(tiny(), r=2, target_modules=["q_proj"]))[0] == 64
    assert trainable(attach_lora(tiny(), r=2, target_modules=r".*layers\.1\..*q_proj"))[0] == 32
    # embedding 128 (tied), layers 2 * (q 64 + k 32 + v 32 + o 64 + 3 * 96 + norms 16), last norm 8
    assert trainable(tiny()) == (1128, 1128)
    assert trainable(tiny(tied=False)) == (1256, 1256)


@pytest.mark.parametrize(
    "settings", [{"target_modules": "nothing_like_it"}, {"target_modules": ["q_proj", "vproj"]}, {"r": 0}]
)
def test_lora_that_cannot_be_attached(settings: dict) -> None:
    with pytest.raises(InputError, match="cannot be attached"):
        attach_lora(tiny(), **settings)


# -- two adapters are one ------------------------------------------------------------------------------------
SETTINGS = {
    "ranks and alphas": ({"r": 3, "lora_alpha": 5}, {"r": 4, "lora_alpha": 32}),
    "rslora": ({"r": 4, "lora_alpha": 3, "use_rslora": True}, {"r": 2, "lora_alpha": 4}),
    "different modules": (
        {"target_modules": ["q_proj", "up_proj"], "r": 2},
        {"target_modules": r".*layers\.1\.(mlp\.up_proj|self_attn\.v_proj)", "r": 3},
    ),
    "patterns": (
        {"r": 2, "rank_pattern": {"layers.0.mlp.up_proj": 5}, "alpha_pattern": {"up_proj": 7}},
        {"r": 4, "lora_alpha": 4, "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 9}},
    ),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_saved_adapter_holds_the_one_below_it(settings: tuple[dict, dict], base: Path, tmp_path: Path) -> None:
    """Plain PEFT on the plain base gives what merged(base + first) + second gave."""
    first = lora(AutoModelForCausalLM.from_pretrained(base), 1, **settings[0])
    first.peft_config["default"].base_model_name_or_path = str(base)
    first.save_pretrained(tmp_path / "first")
    target = load(tmp_path / "first")
    live = lora(target.model, 2, **settings[1])
    expected = logits(live)
    assert (expected - logits(first)).abs().max() > 0.05
    save(live, target.tokenizer, tmp_path / "out", base=target)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=0)
    again = load(tmp_path / "out")
    torch.testing.assert_close(logits(again.model), expected, atol=1e-5, rtol=0)
    assert read_adapter(tmp_path / "out").config["base_model_name_or_path"] == str(base)


def test_what_cannot_be_combined_is_saved_whole(base: Path, tmp_path: Path, logged: list[str]) -> None:
    first = lora(AutoModelForCausalLM.from_pretrained(base), 1, use_dora=True)
    first.peft_config["default"].base_model_name_or_path = str(base)
    first.save_pretrained(tmp_path / "first")
    target = load(tmp_path / "first")
    live = lora(target.model, 2)
    save(live, target.tokenizer, tmp_path / "out", base=target)
    assert "Saving a whole model" in "\n".join(logged) and "use_dora" in "\n".join(logged)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(plain), logits(live), atol=1e-5, rtol=0)


def resized(plain):
    plain.resize_token_embeddings(18, mean_resizing=False)
    return plain


KINDS = {  # name -> (PEFT's settings, what is done to the base first)
    "dora": (LoraConfig(target_modules="all-linear", use_dora=True), None),
    "rslora": (LoraConfig(target_modules="all-linear", use_rslora=True), None),
    "a saved head": (LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]), None),
    "a saved embedding": (LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"]), None),
    "biases": (LoraConfig(target_modules=["q_proj"], bias="all"), None),
    "trained tokens": (LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 2]), None),
    "tokens alone": (TrainableTokensConfig(token_indices=[7, 2]), None),
    "an embedding": (LoraConfig(target_modules=["q_proj", "embed_tokens"]), None),
    "a head": (LoraConfig(target_modules=["q_proj", "lm_head"]), None),
    "a larger vocabulary": (LoraConfig(target_modules=["q_proj"]), resized),
    "ia3": (IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]), None),
}


@pytest.mark.parametrize(
    ("kind", "tied"),
    [*((k, False) for k in ("dora", "rslora", "biases", "ia3")), *((k, True) for k in list(KINDS)[2:])],
)
def test_an_adapter_of_any_kind_says_what_it_says_in_peft(kind: str, tied: bool, tmp_path: Path) -> None:
    """Merged, saved whole, and with another adapter on it; a tied weight that changes at one end comes apart."""
    tiny(tied=tied).save_pretrained(tmp_path / "base")
    words().save_pretrained(tmp_path / "base")
    settings, prepare = KINDS[kind]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    live = get_peft_model(prepare(plain) if prepare else plain, copy.deepcopy(settings)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for p in (p for p in live.parameters() if p.requires_grad):
            p.add_(torch.randn_like(p) * 0.2)
    live.save_pretrained(tmp_path / "adapter")
    expected, target = logits(live), load(tmp_path / "adapter")
    assert (expected[..., :16] - logits(tiny(tied=tied))).abs().max() > 0.01
    torch.testing.assert_close(logits(target.model), expected, atol=1e-5, rtol=0)
    assert all(p.requires_grad for p in target.model.parameters())
    save(target.model, target.tokenizer, tmp_path / "whole")
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", output_loading_info=True)
    torch.testing.assert_close(logits(again), expected, atol=1e-5, rtol=0)
    assert not report["missing_keys"]
    second = lora(target.model, 2, r=2)
    expected = logits(second)
    save(second, target.tokenizer, tmp_path / "second", base=target)
    torch.testing.assert_close(logits(load(tmp_path / "second").model), expected, atol=1e-4, rtol=0)


def test_what_cannot_be_merged_is_refused(base: Path, tmp_path: Path) -> None:
    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    for settings, sentence in (
        (prompt, r"\(PROMPT_TUNING\) cannot be merged"),
        (LoraConfig(target_modules=["q_proj"], lora_bias=True), "cannot be merged into its base .*lora_bias"),
        (LoraConfig(target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]]), "repeats layers of its base"),
    ):
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
        adapted.save_pretrained(tmp_path / "adapter")
        with pytest.raises(InputError, match=sentence):
            load(tmp_path / "adapter")


def test_concatenation_by_hand() -> None:
    """One 2x2 module: 2·[1,0]ᵀ[1,1] + 3·[0,1]ᵀ[1,2] = [[2,2],[3,6]]."""
    key = "base_model.model.m.lora_{}.weight"

    def adapter(a: list[float], b: list[list[float]], alpha: int) -> Adapter:
        state = {key.format("A"): torch.tensor([a]), key.format("B"): torch.tensor(b)}
        return Adapter(state, {"r": 1, "lora_alpha": alpha})

    one = concatenate(adapter([1.0, 1.0], [[1.0], [0.0]], 2), adapter([1.0, 2.0], [[0.0], [1.0]], 3))
    assert (one.config["r"], one.config["lora_alpha"], one.config["target_modules"]) == (2, 2, ["m"])
    product = one.state[key.format("B")] @ one.state[key.format("A")]
    assert product.tolist() == [[2.0, 2.0], [3.0, 6.0]]


def test_scaling_by_hand() -> None:
    assert scaling({"lora_alpha": 8}, "a.q_proj", 4) == 2.0
    assert scaling({"lora_alpha": 8, "use_rslora": True}, "a.q_proj", 4) == 4.0
    assert scaling({"lora_alpha": 8, "alpha_pattern": {"q_proj": 2}}, "a.q_proj", 4) == 0.5
    assert scaling({"lora_alpha": 8, "alpha_pattern": {"proj": 2}}, "a.q_proj", 4) == 2.0


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"modules_to_save": ["norm"]}, {"bias": "all"}, {"init_lora_weights": "pissa"}],
)
def test_what_is_no_sum_of_products_is_refused(settings: dict) -> None:
    plain = Adapter({}, {"r": 1, "lora_alpha": 1})
    with pytest.raises(InputError, match=next(iter(settings))):
        concatenate(plain, replace(plain, config={**plain.config, **settings}))


def test_adapters_of_different_bases_are_refused() -> None:
    def adapter(width: int) -> Adapter:
        state = {"m.lora_A.weight": torch.ones(1, width), "m.lora_B.weight": torch.ones(2, 1)}
        return Adapter(state, {"r": 1, "lora_alpha": 1})

    with pytest.raises(InputError, match="one base"):
        concatenate(adapter(2), adapter(3))
