"""Load a model: a Hub name, a folder, a GGUF file, or a PEFT adapter (its base with the adapter merged: that is then the
target).  Weights are safetensors, never pickles.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from expunge.errors import InputError
from expunge.models.adapt import shared_embedding, without_peft_marks
from expunge.models.gguf import dequantised
from expunge.models.loaded import Loaded, check_generation, fingerprint_state
from expunge.models.locate import Source, adapter_base, resolve
from expunge.models.lora import read_adapter
from expunge.models.tokenizer import load_tokenizer


def load(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> Loaded:
    """The causal language model ``name`` (see :func:`resolve`) and its tokenizer, in evaluation mode.

    An adapter is merged into its base in fp32, then cast to ``dtype``.

    Raises InputError where the model cannot be found, is no causal language model, lacks weights, is stored
    quantised or as a pickle, or where an adapter does not fit its base.
    """
    source = resolve(name, revision=revision)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if source.kind == "adapter":
        model, base = _load_adapter(Path(source.location), options)
        model = model.to(dtype)
    else:
        model, base = _load_plain(source, dtype, options | ({"revision": revision} if revision else {}))
    check_generation(model)
    tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code, revision=revision)
    model.name_or_path = model.config._name_or_path = base
    model = model.to(device).eval() if device is not None else model.eval()
    adapter = source.location if source.kind == "adapter" else None
    return Loaded(model, tokenizer, os.fspath(name), fingerprint_state(model), adapter, base)


def _load_plain(source: Source, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, str]:
    """(model, base name) of a model that is no adapter."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    where = str(dequantised(Path(source.location))) if source.kind == "gguf" else source.location
    options = options if source.kind == "hub" else {k: v for k, v in options.items() if k != "revision"}
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
        model, report = found
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"{source.location} cannot be loaded as a causal language model: {reason}.") from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{source.location} lacks {len(missing)} of its weights, the first is {missing[0]}.")
    if getattr(model.config, "quantization_config", None):
        raise InputError(f"{source.location} is stored quantised; unlearning needs the model in full precision.")
    return model, source.base or where


def _load_adapter(folder: Path, options: dict[str, Any]) -> tuple[Any, str]:
    """(base with the adapter merged in fp32, name of the base)."""
    from peft import PeftModel, get_peft_model_state_dict

    adapter = read_adapter(folder)
    source, revision = adapter_base(folder)
    name = source.base or source.location
    options = options | ({"revision": revision} if revision else {})
    plain, base = _load_plain(source, torch.float32, options)
    if plain.config.get_text_config().tie_word_embeddings and (shared := shared_embedding(plain, adapter)):
        raise InputError(
            f"The adapter {folder} changes {shared}, a weight that its base uses twice; it cannot be merged."
        )
    try:
        model = PeftModel.from_pretrained(plain, folder)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"The adapter {folder} does not fit its base {name}.") from error
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    if set(held) != {key for key in adapter.state if ".base_layer." not in key}:
        raise InputError(f"The adapter {folder} does not fit its base {name}: their modules have other names.")
    if not hasattr(model.base_model, "merge_and_unload"):
        raise InputError(f"The adapter {folder} ({adapter.config['peft_type']}) cannot be merged into a model.")
    return without_peft_marks(model.merge_and_unload()), base
