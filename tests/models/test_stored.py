"""A quantised model has the fingerprint of the same model in full precision."""

from __future__ import annotations

import pytest
import tiny_families
import tiny_tokenizer
import torch
from torch import nn

from expunge import models
from expunge.models import stored
from expunge.models.loaded import fingerprint_state
from expunge.models.locate import resolve
from expunge.models.lora import read_adapter


@pytest.fixture(scope="module", params=["llama", "qwen3", "gpt2"])  # plain, tied, Conv1D and tied
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param) / "model"
    tiny_families.make(request.param).save_pretrained(place)
    tiny_tokenizer.make().save_pretrained(place)
    return place


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_have_the_fingerprint_of_the_model_that_they_load_as(folder, dtype):
    loaded = models.load(folder, dtype=dtype)
    assert stored.fingerprint(resolve(folder), loaded.model, dtype) == loaded.fingerprint


def test_an_adapter_counts_as_merged(folder, tmp_path):
    base = models.load(folder)
    net = models.attach_lora(base.model, r=3, alpha=5, seed=1)
    for name, p in net.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(p, std=0.1)
    models.save(net, base.tokenizer, tmp_path / "a", base=base)
    adapter = read_adapter(tmp_path / "a")
    plain = models.load(folder).model
    found = stored.fingerprint(resolve(folder), plain, torch.float32, adapter=adapter)
    assert found == models.load(tmp_path / "a").fingerprint != fingerprint_state(plain)


def test_names_that_are_not_those_of_the_files_count_as_stored(tmp_path):
    from safetensors.torch import load_file, save_file

    place = tmp_path / "moe"
    tiny_families.make("qwen3_moe").save_pretrained(place)  # experts apart in the files, fused in memory
    tiny_tokenizer.make().save_pretrained(place)
    model = models.load(place).model
    first = stored.fingerprint(resolve(place), model, torch.float32)
    assert first == stored.fingerprint(resolve(place), model, torch.bfloat16) != fingerprint_state(model)
    held = load_file(place / "model.safetensors")
    held[next(name for name in held if ".experts." in name)].view(-1)[0] += 1
    save_file(held, place / "model.safetensors", metadata={"format": "pt"})
    assert stored.fingerprint(resolve(place), model, torch.float32) != first


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_model_has_it_too(folder, kind):
    pytest.importorskip("bitsandbytes")
    assert models.load(folder, quantize=kind).fingerprint == models.load(folder).fingerprint
