"""What of a model LoRA reaches: experts in one tensor, Mamba blocks, and the layers that another update can be added to."""

from __future__ import annotations

import pytest
import tiny
import tiny_families
from torch import nn

from expunge.errors import InputError
from expunge.forward.layers import decoder_layers
from expunge.models import attach_lora, lora_targets, trainable, without_experts
from expunge.models.adapt import fused_projections, routers

LORA = {"r": 2, "alpha": 4, "target_modules": "all-linear"}


def test_experts_in_one_tensor_are_reached_by_name():
    model = tiny_families.make("qwen3_moe")
    targets = lora_targets(model, r"layers\.1\..*down_proj")
    assert targets == {"target_modules": [], "target_parameters": ["model.layers.1.mlp.experts.down_proj"]}
    # 4 experts of 32x24, each with factors of rank 2
    assert trainable(attach_lora(model, r=2, alpha=4, **targets))[0] == 4 * 2 * (32 + 24)


def test_without_experts_every_factor_is_a_linear_layers():
    model = tiny_families.make("mixtral")
    chosen = without_experts(model, LORA)
    names = [f"model.layers.{k}.self_attn.{p}_proj" for k in (0, 1) for p in "qkvo"]
    assert sorted(chosen["target_modules"]) == sorted(names)
    assert without_experts(model, LORA | {"target_modules": ["q_proj"]})["target_modules"] == ["q_proj"]
    assert without_experts(tiny.model(), LORA) == LORA


@pytest.mark.parametrize(("name", "module"), [("falcon_h1", "mamba"), ("granite_hybrid", "mamba"), ("mamba", "mixer")])
def test_what_a_fused_kernel_reads_gets_no_factors(name, module):
    model = tiny_families.make(name)
    fused = fused_projections(model)
    assert any(n.endswith(f"layers.0.{module}.out_proj") for n in fused)
    adapted = [n for n, _ in attach_lora(model, r=2).named_parameters() if ".lora_A." in n]
    assert adapted and not any("out_proj" in n or "dt_proj" in n for n in adapted if module in n)


def test_a_router_that_gives_two_tensors_gets_no_factors():
    model = tiny_families.make("llama4")
    assert routers(model) == ["model.layers.0.feed_forward.router", "model.layers.1.feed_forward.router"]
    placed = [n for n, m in attach_lora(model, **LORA).named_modules() if hasattr(m, "lora_A")]
    assert placed and not any("router" in n for n in placed)
    assert decoder_layers(model)[1:] == ("layers", model.model.layers)


def test_factors_that_peft_puts_elsewhere_are_refused():
    """Of a family with experts PEFT takes ``down_proj`` of a dense layer for the experts' of all layers."""
    model = tiny_families.make("deepseek_v3")
    with pytest.raises(InputError, match=r"cannot put LoRA on model.layers.0.mlp.down_proj of a deepseek_v3 model"):
        attach_lora(model, r=2, **lora_targets(model, r"layers\.0\..*down_proj"))


def test_linear_attention_has_no_fused_projection():
    model = tiny_families.make("qwen3_5")
    assert any(isinstance(m, nn.Linear) and n.endswith("linear_attn.out_proj") for n, m in model.named_modules())
    assert fused_projections(model) == []
