"""The tables of docs/memory.md that ``expunge plan`` makes: large models on stated cards, from published sizes alone.

python scripts/memory.py           # write them: two minutes
python scripts/memory.py --check   # fail if they are stale
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge.plan.describe import size
from expunge.plan.run import verdict
from expunge.plan.settings import Plan
from expunge.unlearning.settings import make

# Published configurations: meta-llama/Llama-3.1-70B and Llama-3.1-8B.
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 8, "vocab_size": 128_256,
    "tie_word_embeddings": False, "max_position_embeddings": 131_072,
}  # fmt: skip
MODELS: Mapping[str, Mapping[str, int]] = {
    "70B": {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "intermediate_size": 28672},
    "8B": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14336},
}
WEIGHTS: Mapping[str, Mapping[str, Any]] = {
    "LoRA, bf16": {"adapter": "lora", "dtype": "bfloat16"},
    "QLoRA, nf4": {"adapter": "lora", "dtype": "bfloat16", "quantize": "nf4"},
    "all weights": {},
}
METHODS: Mapping[str, Mapping[str, Any]] = {"npo": {}, "pdu": {"budget": 1.0}, "blur_npo": {}}
SHARDS = {"fsdp": "full_shard", "fsdp_config": {"version": 2, "activation_checkpointing": True}}
ROWS = {"rows": 400, "row_tokens": 512, "answer_tokens": 256}
HEAD = (
    "| weights | method | weights and gradients | optimizer state | gathered | activations, logits | peak a card | fits |\n"
    "|---|---|--:|--:|--:|--:|--:|---|"
)


def planned(
    model: str, weights: str, method: str, cards: int, memory: str, training: Mapping[str, Any]
) -> tuple[Mapping[str, Any], bool]:
    """The memory of one run of a Llama ``model``, whose folder holds config.json and nothing else; and whether it fits."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({**LLAMA, **MODELS[model]}))
        given = {**WEIGHTS[weights], "method": method, "parameters": METHODS[method], "training": dict(training)}
        quantize = given.pop("quantize", None)
        settings = make({"model": folder, "forget": [], "processes": cards, **given})
        if quantize:
            settings = settings.model_copy(update={"quantize": quantize})
        found, _, fits = verdict(settings, Plan(memory=memory, **ROWS))  # type: ignore[arg-type]
        return found.memory.described, fits


def table(model: str, cards: int, memory: str, training: Mapping[str, Any], kinds: list[str]) -> str:
    """A line for each of the ``kinds`` of weights and each method."""
    out = [HEAD]
    for weights in kinds:
        for method in METHODS:
            out.append(_line(weights, method, *planned(model, weights, method, cards, memory, training)))
    return "\n".join(out)


def _line(weights: str, method: str, memory: Mapping[str, Any], fits: bool) -> str:
    held = memory["frozen_weights"] + memory["trained_weights"] + memory["gradients"]
    cells = (held, memory["optimizer_state"], memory["exchange"], max(memory["passes"].values()), memory["peak"])
    return f"| {weights} | `{method}` | {' | '.join(map(size, cells))} | {'yes' if fits else 'no'} |"


def tables() -> Iterator[str]:
    """All that docs/memory.md shows of large models."""
    rows = f"Rows of {ROWS['row_tokens']} tokens, {ROWS['answer_tokens']} of them labelled."
    eight = {**SHARDS, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    yield (
        "**Llama-3.1-70B on 8 cards of 80 GB**, FSDP2 with activation checkpointing, 2 rows a card (16 of each set a "
        f"step). {rows} While loading, each process also takes the whole model's size in main memory.\n"
    )
    yield table("70B", 8, "80GB", eight, list(WEIGHTS))
    one = {"gradient_checkpointing": True, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    yield f"\n**Llama-3.1-8B on one card of 24 GB**, gradient checkpointing, 4 rows a micro-batch. {rows}\n"
    yield table("8B", 1, "24GB", one, list(WEIGHTS)[:2])


def main() -> int:
    """Write, or with --check compare; returns the exit code."""
    page = Path(__file__).parent.parent / "docs" / "memory.md"
    text = page.read_text()
    begin, end = "<!-- large models: made by scripts/memory.py -->", "<!-- end of large models -->"
    before, rest = text.split(begin)
    wanted = f"{before}{begin}\n{chr(10).join(tables())}\n{end}{rest.split(end)[1]}"
    if "--check" in sys.argv:
        return int(wanted != text)
    page.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
