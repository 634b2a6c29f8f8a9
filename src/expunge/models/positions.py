"""The longest sequence that a model has positions for, from its configuration alone."""

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


def _config(name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        source = resolve(name)
        if source.kind == "adapter":
            source = adapter_base(Path(source.location))[0]
        path = str(dequantised(Path(source.location))) if source.kind == "gguf" else source.location
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (InputError, OSError, ValueError, KeyError):
        return None  # loading reports the problem
