"""What is wrong with a model's files is one sentence before its weights are read."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny
import tiny_tokenizer
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from expunge.errors import InputError
from expunge.models import load, resolve
from expunge.models.check import ADAPTER, INDEX, check_device, check_files, check_ids, vocabulary
from expunge.models.tokenizer import check_tokens, load_tokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model, and in ``adapter`` a LoRA on it."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    tiny.model(vocab_size=261).save_pretrained(folder)
    tiny_tokenizer.make().save_pretrained(folder)
    adapted = get_peft_model(tiny.model(vocab_size=261), LoraConfig(target_modules=["q_proj"]))
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(folder.parent / "adapter")
    return folder


@pytest.fixture
def model(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def adapter(whole, tmp_path):
    shutil.copytree(whole.parent / "adapter", tmp_path / "adapter")
    return tmp_path / "adapter"


def settings(folder, name="config.json", **values):
    known = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(json.dumps({k: v for k, v in known.items() if v != "gone"}))


def weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def cut(file, end):
    file.write_bytes(file.read_bytes()[:end])


def sharded(folder, names):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict(enumerate(names))} if names else {}))


UP = "model.layers.0.mlp.up_proj.weight"
BEFORE = {  # what is done to a model -> what is said before its weights are read
    "settings cut off": (lambda f: (f / "config.json").write_text('{"model_type"'), r"config\.json, line 1: not JSON"),
    "settings a list": (lambda f: (f / "config.json").write_text("[]"), "is not a JSON object"),
    "no type": (lambda f: settings(f, model_type="gone"), 'says no "model_type"'),
    "a type that is none": (lambda f: settings(f, model_type="lama"), "no model type 'lama', did you mean 'llama'"),
    "no language model": (lambda f: settings(f, model_type="t5"), "is a t5 model, which is no causal language model"),
    "a wrong value": (lambda f: settings(f, hidden_size="many"), r"does not fit: .*hidden_size"),
    "wrong heads": (
        lambda f: settings(f, num_attention_heads=3, head_dim="gone"),
        "not a multiple of the number of att",
    ),
    "own code": (
        lambda f: settings(f, model_type="mine", auto_map={"AutoModelForCausalLM": "m.M"}),
        "brings its own code; read it, then say --trust-remote-code",
    ),
    "quantised": (lambda f: settings(f, quantization_config={"quant_method": "awq"}), r"is stored quantised \(awq\)"),
    "weights cut off": (lambda f: cut(f / "model.safetensors", 3000), "is damaged or cut off"),
    "weights empty": (lambda f: cut(f / "model.safetensors", 0), "is damaged or cut off"),
    "integers": (
        lambda f: weights(f, lambda s: s.update({UP: torch.zeros(32, 16, dtype=torch.int8)})),
        r"is stored quantised \(model\.layers\.0\.mlp\.up_proj\.weight is I8\)",
    ),
    "a shard gone": (
        lambda f: sharded(f, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
        r"lacks model-00002-of-00002\.safetensors, which its index names",
    ),
    "an empty index": (lambda f: sharded(f, []), "has no weight_map"),
    "a broken tokenizer": (lambda f: cut(f / "tokenizer.json", 40), r"tokenizer\.json, line \d+: not JSON"),
    "an odd tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "has no tokenizer that can be loaded"),
    "tokenizer settings": (lambda f: (f / "tokenizer_config.json").write_text("{"), "not JSON"),
}


@pytest.mark.parametrize(("harm", "sentence"), BEFORE.values(), ids=BEFORE)
def test_a_damaged_model_is_refused_with_its_tokenizer(harm, sentence, model):
    harm(model)
    with pytest.raises(InputError, match=sentence):
        load_tokenizer(model)


LOADING = {  # what only the weights' names can tell
    "fewer layers": (lambda f: settings(f, num_hidden_layers=1, layer_types="gone"), "no place for .*layers.1"),
    "more layers": (lambda f: settings(f, num_hidden_layers=3, layer_types="gone"), "lacks 9 of its weights"),
    "another width": (lambda f: settings(f, intermediate_size=48), r"is \[16, 32\] in the file and \[16, 48\]"),
    "a tensor more": (lambda f: weights(f, lambda s: s.update({"v_head.weight": torch.ones(3)})), "first is v_head"),
    "no activation": (lambda f: settings(f, hidden_act="swosh"), "cannot be loaded .*swosh"),
}


def test_a_configuration_that_was_changed_is_checked_again(model):
    check_files(resolve(model))
    settings(model, hidden_size="many")
    with pytest.raises(InputError, match="hidden_size"):
        check_files(resolve(model))


@pytest.mark.parametrize(("harm", "sentence"), LOADING.values(), ids=LOADING)
def test_weights_of_another_model_are_refused(harm, sentence, model):
    harm(model)
    with pytest.raises(InputError, match=sentence):
        load(model)


def test_buffers_of_old_checkpoints_and_towers_beside_the_model_are_left_out(model):
    weights(model, lambda s: s.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    weights(model, lambda s: s.update({"model.layers.0.self_attn.masked_bias": torch.ones(1, dtype=torch.int8)}))
    weights(
        model, lambda s: s.update({f"model.{k}.0.weight": torch.ones(1) for k in ("visual", "vision_tower", "mtp")})
    )
    assert load(model).model.config.num_hidden_layers == 2


ADAPTERS = {
    "cut off": (lambda f: cut(f / ADAPTER, 300), "is damaged or cut off"),
    "a base that is gone": (
        lambda f: settings(f, "adapter_config.json", base_model_name_or_path="/no/where"),
        r"The base /no/where of the adapter .* cannot be found",
    ),
    "a base that is no name": (
        lambda f: settings(f, "adapter_config.json", base_model_name_or_path=5),
        "does not say which base",
    ),
    "settings": (lambda f: cut(f / "adapter_config.json", 10), "not JSON"),
}


@pytest.mark.parametrize(("harm", "sentence"), ADAPTERS.values(), ids=ADAPTERS)
def test_a_damaged_adapter_is_refused_with_its_tokenizer(harm, sentence, adapter):
    harm(adapter)
    with pytest.raises(InputError, match=sentence):
        load_tokenizer(adapter)


def test_a_damaged_base_is_seen_through_its_adapter(model, adapter):
    settings(adapter, "adapter_config.json", base_model_name_or_path=str(model))
    check_files(resolve(adapter))
    cut(model / "model.safetensors", 3000)
    with pytest.raises(InputError, match="is damaged or cut off"):
        check_files(resolve(adapter))


# -- vocabulary -----------------------------------------------------------------------------------------------------------
def test_tokens_without_an_embedding_are_refused_where_they_are_used(model):
    tokenizer = tiny_tokenizer.make()
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(model)
    tokenizer = load_tokenizer(model)
    check_tokens(model, tokenizer, tokenizer("Where?").input_ids)  # a token too many that is not used does no harm
    with pytest.raises(
        InputError, match=r"has the token 'zebra' with the number 261, .* embeddings for 261 tokens only"
    ):
        check_tokens(model, tokenizer, tokenizer("a zebra").input_ids)


def test_an_adapter_that_brings_its_embedding_says_its_vocabulary(model, adapter):
    assert vocabulary(resolve(model)) == vocabulary(resolve(adapter)) == 261
    state = load_file(adapter / ADAPTER) | {"base_model.model.model.embed_tokens.weight": torch.zeros(270, 16)}
    save_file(state, adapter / ADAPTER, metadata={"format": "pt"})
    assert vocabulary(resolve(adapter)) == 270


def test_a_vocabulary_that_is_not_known_checks_nothing():
    check_ids(None, [10**9], None, "a model")


# -- device ---------------------------------------------------------------------------------------------------------------
def test_devices(monkeypatch, whole):
    for device in (None, "cpu", "cpu:0", torch.device("cpu")):
        check_device(device)
    for device in ("banana", "", "gpu", "CPU"):
        with pytest.raises(InputError, match=f"there is no device '{device}'; say cpu, cuda"):
            check_device(device)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match="the device cuda is not to be had: this machine has no accelerator"):
        load(whole, device="cuda")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(InputError, match="cuda:2 is not to be had: this machine has 2 of type cuda"):
        check_device("cuda:2")


def test_a_third_model_is_checked_before_the_first_is_loaded(model, tmp_path):
    from expunge.unlearning import settings as recipe
    from expunge.unlearning.ready import planned

    shutil.copytree(model, tmp_path / "third")
    cut(tmp_path / "third" / "model.safetensors", 3000)
    values = {
        "model": str(model),
        "forget": [{"text": "One."}],
        "method": "gradient_ascent",
        "out": str(tmp_path / "out"),
    }
    with pytest.raises(InputError, match=r"third/model\.safetensors is damaged or cut off"):
        planned(recipe.make(values | {"compare_with": str(tmp_path / "third")}))
