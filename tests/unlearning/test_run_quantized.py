"""Runs on a quantised base: what is refused, what is saved, what the record says, and that they go on."""

from __future__ import annotations

import pytest
import torch
from resumed import assert_same, go

from expunge import methods, models, record
from expunge.errors import InputError
from expunge.models import quantize
from expunge.training import arguments
from expunge.unlearning import settings, train

RUN = {"adapter": "lora", "quantize": "nf4", "lora": {"r": 2, "alpha": 4}, "max_steps": 4, "method": "blur_npo"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, r"cannot train \(quantize = nf4\); say adapter = lora"),
        ({"trainable": "mlp"}, r"cannot train \(quantize = nf4\); say adapter = lora"),
        ({"adapter": "lora", "merge": True}, "cannot be merged into weights that are quantised .* leave merge out"),
        ({"adapter": "lora", "training": {"fsdp": "full_shard"}}, "are not sharded; leave out fsdp"),
        ({"adapter": "lora", "quantize": "int4"}, "quantize.*'nf4' or 'int8'"),
    ],
)
def test_what_cannot_be_done_with_quantised_weights_is_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        settings.make({"model": "m", "forget": "f", "quantize": "nf4"} | values)


def test_other_refusals_before_a_model_is_loaded(workplace, monkeypatch):
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda *_: False)
    with pytest.raises(InputError, match="needs the package bitsandbytes"):
        go(out="none", **RUN)
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda *_: True)
    hutchinson = {"optimizer": "sophia", "optimizer_parameters": {"curvature": "hutchinson"}, "method": "npo"}
    with pytest.raises(InputError, match="differences of gradients, which quantize=int8 rounds away"):
        go(out="none", **RUN | hutchinson | {"quantize": "int8"})
    with pytest.raises(InputError, match="quantize=nf4 is of a model that is loaded; give its name or folder"):
        go(models.load("model").model, out="none", **RUN)
    assert not (workplace / "none").exists()


def test_quantize_alone_changes_what_is_made_of_a_run():
    plain = settings.make({"model": "m", "forget": "f", "adapter": "lora"})
    assert plain.quantize is None and plain.compute is None
    assert settings.make({"model": "m", "forget": "f", "adapter": "lora", "dtype": "float32"}).compute == "float32"


def test_differences_of_gradients_are_not_rounded_to_bfloat16():
    plain = settings.make({"model": "m", "forget": "f", "adapter": "lora", "quantize": "nf4", "dtype": "bfloat16"})
    hutchinson = arguments.optimized(methods.npo(), "sophia", {"curvature": "hutchinson"}, {})
    assert train.compute_dtype(plain, methods.npo()) == torch.bfloat16
    assert train.compute_dtype(plain, hutchinson) == torch.float32


# -- with bitsandbytes ----------------------------------------------------------------------------------------------------
@pytest.fixture
def whole(workplace):
    pytest.importorskip("bitsandbytes")
    return go(out="whole", **RUN)


def test_a_run_saves_an_adapter_and_says_how_its_base_was_held(whole):
    from peft import PeftModel

    said = whole.record["model"]
    plain = models.load("model")
    assert said["fingerprint"] == plain.fingerprint and said["parameters"] > models.trainable(plain.model)[1]
    assert said["quantized"] == dict(models.load("model", quantize="nf4").quantized)
    assert said["quantized"]["compute_dtype"] == "float32" and said["quantized"]["double"] is True
    checked = whole.record["output"]["check"]["nll"]["forget"]
    assert checked["in_memory"] == pytest.approx(checked["reloaded"], rel=1e-5)
    assert whole.record["after"]["forget"]["nll"] != whole.record["before"]["forget"]["nll"]
    assert quantize.mismatch(whole.folder / "model" / "adapter_model.safetensors", "nf4") is None
    held = whole.record["training"]["reference"]
    tokens = whole.record["data"]["forget"]["tokens_used"]
    assert held == {"cached_bytes": {"token_logp": 4 * tokens}, "cached_in": "main memory"}

    ids = torch.arange(5, 17).reshape(2, 6)
    base = models.load("model", quantize="nf4").model
    peft = PeftModel.from_pretrained(base, whole.folder / "model")
    with torch.no_grad():
        torch.testing.assert_close(peft(input_ids=ids).logits, whole.model(input_ids=ids).logits, atol=1e-6, rtol=1e-5)


def test_a_run_on_its_adapter_gives_one_adapter(whole):
    said = go(str(whole.folder / "model"), out="second", **RUN | {"max_steps": 1}).record
    assert said["output"]["rank"] == {"saved": 4, "sum": 4, "error": 0.0}
    assert said["parent"]["fingerprint"] == said["model"]["fingerprint"] == whole.record["output"]["fingerprint"]
    assert not [w for w in said["warnings"] if "not those that the record" in w]


def test_an_interrupted_run_goes_on(whole):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kw):
            if state.global_step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(callbacks=Stop(), out="again", **RUN, save_strategy="steps", save_steps=1)
    done = go(**RUN, out="again")
    assert len(done.record["parts"]) == 2 and record.read("again")["parts"][1]["from_step"] >= 1
    assert_same("again", "whole")
