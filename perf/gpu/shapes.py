"""Models of published shapes with random weights, made on the device: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama, what of it trains, and in which format the rest is; ``batches`` are rows of each stream a step."""

    sizes: Mapping[str, Any]
    lora: bool
    dtype: torch.dtype
    batches: tuple[int, ...] = (8, 32)
    rows: int = 400  # of each stream

    def model(self, device: torch.device) -> Any:
        """The model, weights drawn on ``device`` from seed 0."""
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with device:
                return LlamaForCausalLM(LlamaConfig(**self.sizes, max_position_embeddings=2048, pad_token_id=0)).eval()
        finally:
            torch.set_default_dtype(before)


def _sizes(hidden: int, layers: int, heads: int, kv: int, between: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "intermediate_size": between, "vocab_size": vocabulary, "tie_word_embeddings": tied,
    }  # fmt: skip


SHAPES = {
    "8b": Shape(_sizes(4096, 32, 32, 8, 14336, 128_256, False), True, torch.bfloat16),  # Llama-3.1-8B
    "1b": Shape(_sizes(2048, 16, 32, 8, 8192, 128_256, True), False, torch.float32),  # Llama-3.2-1B
}
TINY = {
    "tiny_lora": Shape(_sizes(32, 5, 2, 1, 48, 256, False), True, torch.bfloat16, (2, 4), 16),
    "tiny": Shape(_sizes(32, 5, 2, 1, 48, 256, True), False, torch.float32, (2, 4), 16),
}
