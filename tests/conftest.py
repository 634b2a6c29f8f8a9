"""Shared fixtures: one thread (tiny models drown in thread hand-over), a byte-level tokenizer with a chat template."""

from __future__ import annotations

import functools
import gc

import accelerate.utils.imports
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)
# Every forward pass asks whether DeepSpeed is installed, and the answer is searched for on the disk.
accelerate.utils.imports._is_package_available = functools.cache(accelerate.utils.imports._is_package_available)


def pytest_collection_finish() -> None:
    """The libraries' objects live to the end: the collector, which every run calls, need not walk them each time."""
    gc.collect()
    gc.freeze()


TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|bos|>"]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Each byte is a token; ``<|end|>`` ends a turn and pads."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {s: i for i, s in enumerate(SPECIAL + alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>", bos_token="<|bos|>", chat_template=TEMPLATE
    )
    made.add_special_tokens({"additional_special_tokens": SPECIAL[1:4]})
    return made


QUESTIONS = [
    {"question": f"Where does {n} live?", "answer": f"{n} lives in {p}."}
    for n, p in [
        ("Ada", "Oru"),
        ("Bo", "Lim"),
        ("Cy", "Tar"),
        ("Di", "Ven"),
        ("Ed", "Sol"),
        ("Flo", "Nar"),
        ("Gil", "Pon"),
        ("Hy", "Wex"),
    ]
]


@pytest.fixture
def workplace(tmp_path, monkeypatch, tokenizer):
    """An empty folder to run in that holds ``model/``, ``forget.jsonl`` (3 rows) and ``retain.jsonl`` (5 rows)."""
    import json

    import tiny

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    m = tiny.model(vocab_size=len(tokenizer))
    m.generation_config.eos_token_id = tokenizer.eos_token_id
    m.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for name, rows in (("forget", QUESTIONS[:3]), ("retain", QUESTIONS[3:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path
