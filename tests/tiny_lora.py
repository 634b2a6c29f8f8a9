"""A tiny Llama with a tokenizer of words, and LoRAs on it, for tests of loading and saving."""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

IDS = torch.tensor([[3, 7, 1, 9, 4, 2, 8]])
WORDS = ["<end>", *"abcdefghijklmno"]


def tiny(seed: int = 0, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=tied, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def words() -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<end>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", unk_token="<end>")


def lora(model, seed: int, **settings) -> PeftModel:
    """A LoRA with both factors away from zero."""
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", **{"target_modules": "all-linear", **settings})
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value.normal_(0, 0.3)
    return adapted.eval()


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS.to(next(model.parameters()).device)).logits
