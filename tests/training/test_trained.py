"""The weights that train, under their names in the model."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file
from tiny_families import FAMILIES
from transformers import AutoModelForCausalLM

from expunge.errors import InputError
from expunge.method import build
from expunge.models import attach_lora, train_only
from expunge.training import pieces, trained


def mixture():
    name, settings = FAMILIES["mixtral"]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings))


def test_only_what_trains_is_written_and_read_exactly(tmp_path):
    m, other = tiny.model(0), tiny.model(1)
    for one in (m, other):
        train_only(one, "mlp")
    pieces.write(tmp_path, trained.NAME, trained.weights_of(m).items())
    assert set(load_file(tmp_path / "trained.safetensors")) == {n for n, p in m.named_parameters() if p.requires_grad}
    frozen = {n: p.clone() for n, p in other.named_parameters() if not p.requires_grad}
    assert trained.load(tmp_path, other)
    wanted = dict(m.named_parameters()) | frozen
    assert all(torch.equal(p, wanted[name]) for name, p in other.named_parameters())
    assert not trained.load(tmp_path / "nowhere", other)


def test_weights_of_another_model_are_refused(tmp_path):
    pieces.write(tmp_path, trained.NAME, trained.weights_of(attach_lora(tiny.model(), r=2, alpha=4, seed=0)).items())
    with pytest.raises(InputError, match="holds the weights of another model"):
        trained.load(tmp_path, tiny.model())


def test_a_mixture_of_experts_resumes_from_a_checkpoint_that_was_asked_for(tmp_path):
    """transformers saves its experts one by one, and does not put them together again."""
    kw = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "learning_rate": 1e-2}
    whole = tiny.trainer(build("grad_diff"), mixture(), out=str(tmp_path), **kw)
    whole.train()
    again = tiny.trainer(build("grad_diff"), mixture(), out=str(tmp_path), **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert not tiny.delta(again.model, whole.model).any()
    (tmp_path / "checkpoint-1" / "trained.safetensors").unlink()
    lacking = tiny.trainer(build("grad_diff"), mixture(), out=str(tmp_path), **kw)
    with pytest.raises(InputError, match=r"lacks the weight model\.layers\.0\.mlp\.experts\.down_proj"):
        lacking.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_a_plain_checkpoint_is_transformers_own(tmp_path):
    t = tiny.trainer(build("grad_diff"), out=str(tmp_path), save_strategy="steps", save_steps=3)
    t.train()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-3")
    assert not (tmp_path / "checkpoint-3" / "trained.safetensors").exists()
