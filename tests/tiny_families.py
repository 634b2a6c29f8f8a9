"""A tiny model of random weights of each family of causal language models that the tests go through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

V = 261  # of tiny_tokenizer

_ENDS = {"pad_token_id": 0, "eos_token_id": 0, "bos_token_id": 4, "vocab_size": V}
_PLAIN = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256, "initializer_range": 0.1,
} | _ENDS  # fmt: skip
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2,
}  # fmt: skip
_MAMBA = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16,
    "mamba_expand": 2,
}  # fmt: skip
_YARN = {
    "rope_type": "yarn", "factor": 2.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 128, "rope_theta": 150000.0,
}  # fmt: skip

# family -> (configuration class, its settings)
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaConfig", _PLAIN),
    "qwen3": ("Qwen3Config", _PLAIN | {"tie_word_embeddings": True}),
    "qwen3_moe": ("Qwen3MoeConfig", _PLAIN | _MOE),
    "qwen3_5": ("Qwen3_5TextConfig", _PLAIN | _LINEAR),
    "gemma3": (
        "Gemma3TextConfig",
        _PLAIN | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
    ),
    "mixtral": ("MixtralConfig", _PLAIN | {"num_local_experts": 4, "output_router_logits": True}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256} | _ENDS),
    "gpt_neox": ("GPTNeoXConfig", _PLAIN),
    "falcon_h1": ("FalconH1Config", _PLAIN | _MAMBA | {"mamba_d_ssm": 64}),
    "gpt_oss": (
        "GptOssConfig",
        _PLAIN | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8, "rope_parameters": _YARN},
    ),
    "qwen3_next": ("Qwen3NextConfig", _PLAIN | _MOE | _LINEAR | {"shared_expert_intermediate_size": 24}),
    "lfm2": ("Lfm2Config", _PLAIN | {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "granite_hybrid": (
        "GraniteMoeHybridConfig",
        _PLAIN | _MAMBA | {
            "layer_types": ["mamba", "attention"], "num_local_experts": 4, "shared_intermediate_size": 24,
        },
    ),
    "bamba": ("BambaConfig", _PLAIN | _MAMBA | {"attn_layer_indices": [1]}),
    "phi3": ("Phi3Config", _PLAIN | {"num_key_value_heads": 2}),
    "olmo2": ("Olmo2Config", _PLAIN),
    "falcon": ("FalconConfig", {k: v for k, v in _PLAIN.items() if k != "head_dim"}),
    "opt": (
        "OPTConfig",
        {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32,
         "max_position_embeddings": 256} | _ENDS,
    ),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 2} | _ENDS),
    "llama4": (
        "Llama4TextConfig",
        _PLAIN | {"num_local_experts": 2, "intermediate_size_mlp": 48, "interleave_moe_layer_step": 1,
                  "attention_chunk_size": 16},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        _PLAIN | {
            "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
            "moe_intermediate_size": 24, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1, "head_dim": 8, "num_key_value_heads": 2,
        },
    ),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8} | _ENDS),
}  # fmt: skip
CONTRACT = tuple(FAMILIES)[:10]  # one of each kind; the others are members of a kind


def make(family: str, seed: int = 0) -> Any:
    """The model of ``family``, drawn from ``seed``."""
    name, settings = FAMILIES[family]
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).eval()
