"""Decoder layers under ``torch.compile``: forward and backward of SmolLM2's widths, six layers, batches of eight lengths.

    python -m perf.compiled [--device cuda]

Prints seconds of the eight batches in eager mode and compiled (dynamic shapes), and what compiling took.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

LENGTHS = (57, 41, 73, 66, 49, 80, 38, 61)
SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 1000}
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3}


def seconds(model: Any) -> float:
    """Of forward and backward on one batch of each length."""
    began = time.perf_counter()
    for n in LENGTHS:
        ids = torch.randint(0, SHAPE["vocab_size"], (8, n), device=model.device)
        model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).mean().backward()
        model.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS)).to(args.device)
    seconds(model)
    eager = min(seconds(model) for _ in range(2))
    for layer in model.model.layers:
        layer.compile(dynamic=True)
    first = seconds(model)
    compiled = min(seconds(model) for _ in range(2))
    print(
        f"eager {eager:.2f} s, compiled {compiled:.2f} s ({eager / compiled:.2f} x), compiling {first - compiled:.0f} s"
    )


if __name__ == "__main__":
    main()
