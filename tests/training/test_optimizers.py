"""Optimizers in 8 bits or paged: one sentence where something lacks, and the same steps after a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import Trainer
from transformers.training_args import OptimizerNames

from expunge import methods
from expunge.errors import InputError
from expunge.training import arguments, optimizers

NAMES = [one.value for one in OptimizerNames]


def made(tmp_path, **given):
    return arguments.arguments({"use_cpu": True, **given}, {"report_to": []}, tmp_path, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_packages_are_those_that_transformers_asks_for(name, tmp_path, monkeypatch):
    asked = set()

    def gone(package, *_):
        asked.add(package)
        raise ModuleNotFoundError(f"no {package}")

    import builtins

    real = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda n, *a: gone(n.split(".")[0]) if n.split(".")[0] in PACKAGES else real(n, *a)
    )
    args = tiny.arguments(str(tmp_path), optim=name)
    try:
        Trainer.get_optimizer_cls_and_kwargs(args)
    except Exception as error:
        asked |= {package for package in PACKAGES if package in str(error)}
    wanted = (
        {"bitsandbytes"}
        if optimizers.is_of_bitsandbytes(name)
        else {"torchao"}
        if name in optimizers.TORCHAO
        else set()
    )
    assert asked == wanted


PACKAGES = ("bitsandbytes", "torchao")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("adamw_bnb_8bit", r"needs the package bitsandbytes: pip install 'expunge\[gpu\]'$"),
        ("paged_adamw_32bit", r"needs the package bitsandbytes: pip install 'expunge\[gpu\]'$"),
        ("adamw_torch_8bit", r"needs the package torchao: pip install torchao$"),
    ],
)
def test_a_missing_package_is_one_sentence(name, sentence, monkeypatch):
    monkeypatch.setattr(optimizers, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=sentence):
        arguments.parsed({"optim": name})


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("paged_adamw_8bit", {}, "pages between a GPU and main memory, and training is on a CPU; say adamw_bnb_8bit$"),
        ("paged_lion_32bit", {}, "training is on a CPU; say adamw_torch$"),
        ("lion_8bit", {"fsdp": ["full_shard"]}, r"cannot step on weights in shards \(fsdp\)"),
        ("adamw_torch_4bit", {}, "no C\\+\\+ compiler is installed"),
    ],
)
def test_what_the_device_cannot_do_is_one_sentence(name, args, sentence, monkeypatch):
    monkeypatch.setattr(optimizers.shutil, "which", lambda _: None)
    whole = SimpleNamespace(**({"device": torch.device("cpu"), "fsdp": []} | args))
    with pytest.raises(InputError, match=sentence):
        optimizers.check_device(name, whole)
    optimizers.check_device("adamw_torch", whole)


def test_on_a_card_they_are_let_through():
    for name in ("paged_adamw_8bit", "adamw_torch_8bit", "adamw_bnb_8bit"):
        optimizers.check_device(name, SimpleNamespace(device=torch.device("cuda"), fsdp=[]))


def test_a_bitsandbytes_without_a_step_for_cpus_is_one_sentence():
    class NoStep(torch.optim.SGD):
        def step(self):
            raise NotImplementedError("on a GPU only")

    with pytest.raises(InputError, match=r"no step for a CPU \(NotImplementedError\); install a newer one"):
        optimizers.check_step("adamw_bnb_8bit", NoStep, {"lr": 0.1})


def test_sophia_takes_none_of_them():
    with pytest.raises(InputError, match="optim is for transformers' own optimizers, and soul_npo trains with Sophia"):
        arguments.optimized(methods.soul_npo(), None, {}, {"optim": "adamw_bnb_8bit"})


# -- with bitsandbytes ----------------------------------------------------------------------------------------------------
WIDE = {"hidden_size": 64, "intermediate_size": 128}  # bitsandbytes holds moments of fewer than 4096 weights in 32 bits


@pytest.mark.parametrize("name", ["adamw_bnb_8bit", "lion_8bit", "ademamix_8bit"])
def test_moments_in_8_bits_go_on_from_a_checkpoint(name, tmp_path):
    pytest.importorskip("bitsandbytes")

    def trained(out, steps, **kw):
        t = tiny.trainer(methods.blur_npo(), tiny.model(**WIDE), out=str(out), optim=name, max_steps=4,
                         learning_rate=1e-3, save_strategy="steps", save_steps=2)  # fmt: skip
        t.args.max_steps = steps
        t.train(**kw)
        return t

    whole = trained(tmp_path / "whole", 4)
    states = [s for s in whole.optimizer.state.values() if s["state1"].dtype == torch.uint8]
    assert len(states) >= 14  # every matrix of two layers
    trained(tmp_path / "cut", 2)
    again = trained(tmp_path / "cut", 4, resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert tiny.delta(whole.model, tiny.model(**WIDE)).norm() > 1e-3


def test_moments_in_8_bits_step_as_those_in_32(tmp_path):
    pytest.importorskip("bitsandbytes")

    def moved(name):
        t = tiny.trainer(methods.npo(), tiny.model(**WIDE), optim=name, learning_rate=1e-3, weight_decay=0.0)
        t.train()
        return tiny.delta(t.model, tiny.model(**WIDE))

    eight, full = moved("adamw_bnb_8bit"), moved("adamw_torch")
    assert torch.cosine_similarity(eight, full, dim=0) > 0.98 and not torch.equal(eight, full)


def test_arguments_with_8_bits_are_taken_on_a_cpu(tmp_path):
    pytest.importorskip("bitsandbytes")
    assert made(tmp_path, optim="adamw_bnb_8bit").optim.value == "adamw_bnb_8bit"
    with pytest.raises(InputError, match="training is on a CPU; say adamw_bnb_8bit"):
        made(tmp_path, optim="paged_adamw_8bit")
