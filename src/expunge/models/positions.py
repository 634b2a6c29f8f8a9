"""What a model can be given, from its configuration alone: how long a sequence, which tokens; before weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.models.gguf import dequantised
from expunge.models.locate import adapter_base, resolve

NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


def positions(model: Any, *, trust_remote_code: bool = False) -> int | None:
    """The most tokens that ``model``, a name or a model in memory, has positions for; None where it does not say."""
    config = getattr(model, "config", None) or _config(str(model), trust_remote_code)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return next((n for name in NAMES if isinstance(n := getattr(text, name, None), int) and n > 0), None)


def vocabulary(model: Any, *, trust_remote_code: bool = False) -> int | None:
    """How many tokens ``model`` has embeddings for; None where it does not say, as of an adapter, which may bring some."""
    config = getattr(model, "config", None)
    if config is None:
        try:
            if resolve(str(model)).kind == "adapter":
                return None
        except InputError:
            return None
        config = _config(str(model), trust_remote_code)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(text, "vocab_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _config(name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        source = resolve(name)
        if source.kind == "adapter":
            source = adapter_base(Path(source.location))[0]
        where = str(dequantised(Path(source.location))) if source.kind == "gguf" else source.location
        return AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code)
    except (InputError, OSError, ValueError, KeyError):
        return None  # loading says what is wrong
