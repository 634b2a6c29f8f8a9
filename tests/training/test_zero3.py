"""ZeRO 3, with a stand-in for DeepSpeed that holds each weight in two parts, and with DeepSpeed itself where it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
import tiny
import tiny_tokenizer
import torch
from safetensors.torch import load_file
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled, set_hf_deepspeed_config

from expunge import methods
from expunge.forward import family
from expunge.training import finite, sharded, zero3


@contextmanager
def gathered_parameters(params):
    for p in params:
        p.data = p.together.clone()
    yield
    for p in params:
        p.data.zero_()  # its memory is another's from here on
        p.data = torch.empty(0)


def partition(model):
    """What DeepSpeed does to a model's weights, in the first of two processes: half of each is there, in one dimension."""
    for i, p in enumerate(model.parameters()):
        p.ds_id, p.ds_shape, p.together = i, p.shape, p.data
        p.ds_tensor = p.data.flatten()[: (p.numel() + 1) // 2]
        p.data = torch.empty(0)


@pytest.fixture
def deepspeed(monkeypatch):
    module = ModuleType("deepspeed")
    module.zero = SimpleNamespace(GatheredParameters=gathered_parameters)
    monkeypatch.setitem(sys.modules, "deepspeed", module)


@pytest.mark.parametrize(("stage", "on"), [(3, True), (2, False), (None, False)])
def test_stage_3_alone_switches_it_on(stage, on):
    plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
    assert zero3.switched_on(SimpleNamespace(deepspeed_plugin=plugin)) == on
    assert not zero3.switched_on(SimpleNamespace())


def test_models_are_made_whole():
    """Under the training argument ``deepspeed`` transformers made them in parts, before the rows of a step were known."""

    class Config:
        def is_zero3(self):
            return True

    config = Config()
    set_hf_deepspeed_config(config)
    assert is_deepspeed_zero3_enabled()
    zero3.make_whole(SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=3)))
    assert not is_deepspeed_zero3_enabled()


@pytest.mark.parametrize("tied", [False, True])
def test_the_main_process_gets_the_weights_whole(deepspeed, tied):
    model = tiny.model(tie_word_embeddings=tied)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    skeleton, count = sharded.skeleton_of(model), model.num_parameters()
    partition(model)
    made = zero3.gathered(skeleton, model, main=True)
    held = made.state_dict()
    assert held.keys() == expected.keys() and all(torch.equal(held[k], expected[k]) for k in held)
    assert made is not model and (made.lm_head.weight is made.model.embed_tokens.weight) == tied
    assert all(p.numel() == 0 for p in model.parameters())
    assert zero3.gathered(skeleton, model, main=False) is model
    assert family.parameters(model) == family.parameters(made) == count
    assert family.shape_of(model.lm_head.weight) == (tiny.V, 16)


def test_the_trainer_gathers_once_weights_are_in_parts(request):
    t = tiny.trainer(methods.npo())
    request.getfixturevalue("deepspeed")  # accelerate would take it for the package
    assert t.skeleton is None and t.gathered() is t.model
    t.skeleton = sharded.skeleton_of(t.model)
    assert t.gathered() is t.model
    expected = t.model.lm_head.weight.detach().clone()
    flops = t.floating_point_ops({"forget": {"input_ids": torch.zeros(2, 3)}})
    partition(t.model)
    assert torch.equal(t.gathered().lm_head.weight, expected)
    assert t.floating_point_ops({"forget": {"input_ids": torch.zeros(2, 3)}}) == flops > 0


def test_each_process_copies_puts_back_and_checks_its_parts(monkeypatch):
    model = tiny.model()
    partition(model)
    copy = finite.copy_of(model, 1)
    held = [p.ds_tensor.clone() for p in model.parameters()]
    for p in model.parameters():
        p.ds_tensor.zero_()
    finite.restore(model, copy)
    assert all(torch.equal(p.ds_tensor, h) for p, h in zip(model.parameters(), held, strict=True))
    summed = []
    monkeypatch.setattr(torch.distributed, "all_reduce", summed.append)
    assert finite.first_not_finite(model) is None
    model.lm_head.weight.ds_tensor[0] = torch.nan
    assert finite.first_not_finite(model) == "lm_head.weight"
    assert [float(s.sum()) for s in summed] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--adapter", "lora"), ("-p", "retain=kl")], ids=["full", "lora", "reference"])
def test_deepspeed_gives_the_weights_of_one_process(tmp_path, more):
    """Every weight in parts; the record and the exit code too."""
    pytest.importorskip("deepspeed")
    words = tiny_tokenizer.make()
    tiny.model(vocab_size=len(words)).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    rows = [{"question": f"Where does {n} live?", "answer": f"In {n}ville."} for n in "ABCDEFGH"]
    (tmp_path / "rows.json").write_text(json.dumps(rows[:4]))
    (tmp_path / "retain.json").write_text(json.dumps(rows[4:]))
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    sizes = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    config = json.dumps({"zero_optimization": zero} | dict.fromkeys(sizes, "auto"))
    command = [sys.executable, "-m", "expunge", "run", "--model", "model", "--forget", "rows.json"]
    command += ["--retain", "retain.json", "--method", "npo", "max_steps=4", "lr=0.01", "--save-every", "never", *more]
    env = os.environ | {"DS_ACCELERATOR": "cpu"}
    for out, how in (("one", ()), ("two", ("--processes", "2", f"deepspeed={config}"))):
        subprocess.run([*command, *how, "--out", out], cwd=tmp_path, env=env, check=True, timeout=600)
    one, two = (load_file(next((tmp_path / out / "model").glob("*.safetensors"))) for out in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["parts"][0]["processes"] == 2
