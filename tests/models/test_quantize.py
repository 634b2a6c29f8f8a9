"""A base in 4 or 8 bits: what is refused without bitsandbytes, and with it what is held, computed and warned of."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from expunge import models
from expunge.errors import InputError
from expunge.models import quantize
from expunge.models.check import check_files
from expunge.models.locate import resolve

IDS = torch.arange(5, 17).reshape(2, 6)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def with_config(tiny_model, folder, said):
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    return folder


# -- without bitsandbytes -------------------------------------------------------------------------------------------------
def test_a_missing_package_is_one_sentence_before_a_model_is_loaded(tiny_model, monkeypatch):
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda *_: False)
    with pytest.raises(InputError, match=r"needs the package bitsandbytes.* pip install 'expunge\[gpu\]'$"):
        models.load("there-is-no-such-model", quantize="nf4")
    assert quantize.check(None) is None


def test_an_unknown_kind_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match=r"quantize must be nf4 or int8, not 'int4'"):
        quantize.check("int4")


BNB8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
BNB4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("said", "kind", "sentence"),
    [
        ({"quant_method": "gptq", "bits": 4}, "nf4", r"is stored quantised \(gptq\), which expunge cannot use; give"),
        ({"quant_method": "awq"}, None, r"is stored quantised \(awq\), which expunge cannot use; give"),
        (BNB4 | {"bnb_4bit_quant_type": "fp4"}, "nf4", r"is stored quantised \(fp4\), which expunge cannot use; give"),
        (BNB4, None, "needs the model in full precision, so give .* or say --quantize nf4"),
        (BNB4, "int8", "is stored as nf4; say --quantize nf4"),
        (BNB8, "nf4", "is stored as int8; say --quantize int8"),
        ([1], None, r"is stored quantised \(an unnamed method\)"),
    ],
)
def test_what_is_stored_quantised_is_refused_by_its_settings(tiny_model, tmp_path, said, kind, sentence):
    with pytest.raises(InputError, match=sentence):
        check_files(resolve(with_config(tiny_model, tmp_path / "m", said)), quantize=kind)


def test_what_is_stored_in_the_same_form_is_taken(tiny_model, tmp_path):
    check_files(resolve(with_config(tiny_model, tmp_path / "m", BNB4)), quantize="nf4")


def test_an_adapter_says_how_its_base_was_held(tmp_path):
    file = tmp_path / "adapter_model.safetensors"
    for trained, now, words in [
        ("nf4", "nf4", None),
        (None, None, None),
        ("nf4", None, "trained on its base in nf4, and the base is not quantised now; --quantize nf4 loads"),
        ("nf4", "int8", "trained on its base in nf4, and the base is in int8 now; --quantize nf4 loads"),
        (None, "int8", "trained on a base in full precision, as far as it says, and the base is in int8 now"),
    ]:
        save_file({"a": torch.zeros(1)}, file, metadata=quantize.metadata(trained))
        found = quantize.mismatch(file, now)
        assert (found is None) if words is None else words in found


def test_a_card_has_its_number(monkeypatch):
    assert quantize.placed("cuda") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert quantize.placed("cuda") == torch.device("cuda", 1) and quantize.placed(None) == torch.device("cpu")


# -- with bitsandbytes ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def held(tiny_model):
    pytest.importorskip("bitsandbytes")
    return {kind: models.load(tiny_model, quantize=kind) for kind in quantize.KINDS}


@pytest.fixture(scope="module")
def plain(tiny_model):
    return models.load(tiny_model)


def dequantised(module):
    """The weight of a quantised layer in fp32, by bitsandbytes' own functions."""
    from bitsandbytes.functional import dequantize_4bit

    weight = module.weight
    if hasattr(weight, "quant_state"):
        return dequantize_4bit(weight.data, weight.quant_state).float()
    return weight.data.float() * weight.SCB[:, None] / 127


@pytest.mark.parametrize("kind", quantize.KINDS)
def test_linear_layers_are_quantised_and_nothing_else(held, plain, kind):
    got = held[kind]
    inner = [name for name, m in plain.model.named_modules() if isinstance(m, nn.Linear) and name != "lm_head"]
    others = [p for p in got.model.parameters() if not quantize.is_quantized(p)]
    assert sorted(n for n, m in got.model.named_modules() if quantize.is_quantized(getattr(m, "weight", m))) == sorted(
        inner
    )
    assert all(p.dtype == torch.float32 for p in others) and not any(p.requires_grad for p in got.model.parameters())
    assert got.quantized["parameters"] == sum(plain.model.get_submodule(n).weight.numel() for n in inner)
    assert models.trainable(got.model) == (0, models.trainable(plain.model)[1])


@pytest.mark.parametrize("kind", quantize.KINDS)
def test_a_quantised_model_computes_with_the_rounded_weights(held, tiny_model, kind):
    rounded = models.load(tiny_model).model
    exact = logits(rounded)
    for name, module in held[kind].model.named_modules():
        if quantize.is_quantized(getattr(module, "weight", module)):
            rounded.get_submodule(name).weight.data.copy_(dequantised(module))
    error = (logits(held[kind].model) - logits(rounded)).abs().max()
    assert error < {"nf4": 1e-5, "int8": 3e-3}[kind]  # int8 rounds the activations, too
    assert (logits(rounded) - exact).abs().max() > 1e-4


def test_bfloat16_is_of_the_weights_that_stay_and_of_the_products(tiny_model):
    pytest.importorskip("bitsandbytes")
    got = models.load(tiny_model, quantize="nf4", dtype=torch.bfloat16, compute_dtype=torch.bfloat16)
    assert got.model.lm_head.weight.dtype == torch.bfloat16 and got.quantized["compute_dtype"] == "bfloat16"
    assert got.model.model.layers[0].mlp.up_proj.compute_dtype == torch.bfloat16


@pytest.mark.parametrize("kind", quantize.KINDS)
def test_a_folder_that_is_stored_quantised_loads_as_it_is(held, tmp_path, kind):
    held[kind].model.save_pretrained(tmp_path)
    held[kind].tokenizer.save_pretrained(tmp_path)
    again = models.load(tmp_path, quantize=kind)
    assert torch.equal(logits(again.model), logits(held[kind].model))
    assert again.quantized == held[kind].quantized
    with pytest.raises(InputError, match=f"say --quantize {kind}"):
        models.load(tmp_path)


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    base = models.load(tiny_model)
    net = models.attach_lora(base.model, r=3, alpha=5, seed=1)
    for name, p in net.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(p, std=0.1)
    return models.save(net, base.tokenizer, tmp_path_factory.mktemp("adapter") / "a", base=base)


@pytest.mark.parametrize("kind", quantize.KINDS)
def test_an_adapter_runs_beside_a_quantised_base_as_in_peft(held, adapter, tiny_model, kind, logged):
    from peft import PeftModel

    quantize.warn_once.cache_clear()
    got = models.load(adapter, quantize=kind)
    assert "trained on a base in full precision" in "\n".join(logged)
    fresh = models.load(tiny_model, quantize=kind).model
    torch.testing.assert_close(
        logits(got.model), logits(PeftModel.from_pretrained(fresh, adapter)), atol=1e-5, rtol=1e-5
    )
    assert (logits(got.model) - logits(held[kind].model)).abs().max() > 0.01
    assert not hasattr(got.model, "peft_config") and got.base == str(tiny_model) and got.adapter == str(adapter)


def test_an_adapter_that_is_no_plain_lora_runs_in_pefts_own_layers(tiny_model, tmp_path):
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig, get_peft_model

    base = models.load(tiny_model)
    net = get_peft_model(base.model, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, init_lora_weights=False))
    net.save_pretrained(tmp_path)
    got = models.load(tmp_path, quantize="nf4")
    assert hasattr(got.model, "peft_config") and logits(got.model).isfinite().all()


def test_a_model_of_which_nothing_can_be_quantised_is_refused():
    pytest.importorskip("bitsandbytes")

    class Plain(nn.Linear):
        get_input_embeddings = get_output_embeddings = lambda self: nn.Embedding(1, 1)

    with pytest.raises(InputError, match="can hold no layer of here in nf4"):
        quantize.check_held(Plain(2, 2), "here", "nf4")


def test_a_saved_adapter_carries_the_mark(held, tmp_path):
    import copy
    from dataclasses import replace

    from safetensors import safe_open

    base = replace(held["nf4"], model=copy.deepcopy(held["nf4"].model))
    saved = models.save(models.attach_lora(base.model, r=2, alpha=2), base.tokenizer, tmp_path / "a", base=base)
    with safe_open(saved / "adapter_model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt", quantize.MARK: "nf4"}
    assert all(v.dtype == torch.float32 for v in load_file(saved / "adapter_model.safetensors").values())
