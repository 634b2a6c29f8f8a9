"""A tokenizer into a GGUF file: byte-level BPE, whose splitting of text llama.cpp has a name for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NORMAL, CONTROL, OWN = 1, 3, 4  # llama.cpp's types of tokens: of the vocabulary, special, added by the user
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS, REST = r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}"
SPLITS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}


def problem(tokenizer: Any) -> str | None:
    """Why ``tokenizer`` cannot be written; None where it can."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        return "it is no tokenizer of the library tokenizers"
    said = described(tokenizer)
    kind = (said.get("model") or {}).get("type")
    if kind != "BPE" or said["model"].get("byte_fallback"):
        return f"it is {kind}, and only byte-level BPE is written here"
    if (said.get("normalizer") or {}).get("type") not in (None, "NFC"):
        return "it changes texts before they are split (a normalizer), which the file has no place for"
    if split_name(said.get("pre_tokenizer") or {}) is None:
        return "llama.cpp has no known name for how it splits texts"
    return None


def described(tokenizer: Any) -> dict[str, Any]:
    """``tokenizer.json`` of a tokenizer."""
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def split_name(pre: Mapping[str, Any]) -> str | None:
    """What llama.cpp calls a pre-tokenizer; None where it has no name for it.

    >>> split_name({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True})
    'gpt-2'
    """
    parts = pre.get("pretokenizers", [pre])
    *before, last = parts
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if last.get("use_regex", True):
        digits = [p.get("type") == "Digits" and p.get("individual_digits") for p in before]
        return {(): "gpt-2", (True,): "smollm"}.get(tuple(map(bool, digits)))
    if len(before) == 1 and before[0].get("type") == "Split":
        return SPLITS.get((before[0].get("pattern") or {}).get("Regex", ""))
    return None


def add(writer: Any, tokenizer: Any, size: int) -> None:
    """Write ``tokenizer`` with ``writer`` (``gguf.GGUFWriter``); ``size``: rows of the embedding, those without a token get
    one that is never met.  Raises ValueError where there is a :func:`problem`.
    """
    if why := problem(tokenizer):
        raise ValueError(why)
    said = described(tokenizer)
    tokens = {i: text for text, i in tokenizer.get_vocab().items()}
    added = {t["id"]: CONTROL if t["special"] else OWN for t in said["added_tokens"]}
    ids = range(max(size, len(tokens)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(said["pre_tokenizer"]))
    writer.add_token_list([tokens.get(i, f"[unused {i}]") for i in ids])
    writer.add_token_types([added.get(i, NORMAL) if i in tokens else OWN for i in ids])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in said["model"]["merges"]])
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(False)  # the chat template brings its own
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
