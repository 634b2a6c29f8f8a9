"""Checks of a model before its weights are loaded: its configuration, its files, its vocabulary, the device."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expunge.errors import InputError, nearest, shortened
from expunge.files import read_json
from expunge.models.locate import Source, adapter_base
from expunge.models.quantize import check_stored

INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
REMEDY = "restore or download it again"
QUANTISED = ("I8", "U8", "I4", "U4", "F8_E4M3", "F8_E5M2", "F4")  # dtypes as safetensors names them
MASKS = (".attn.bias", ".attention.bias", "masked_bias")  # buffers of old checkpoints, in integers
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "lm_head", "embed_out")


# -- files ----------------------------------------------------------------------------------------------------------------
def check_files(source: Source, *, trust_remote_code: bool = False, quantize: str | None = None) -> None:
    """Raise InputError for a model in a folder with invalid settings, or weights that are missing, truncated or quantised.

    Of an adapter its own file and its base are checked; a model on the Hub and a GGUF file are not.  ``quantize``: the model
    may be stored in this form already, see :mod:`expunge.models.quantize`.
    """
    if source.kind == "adapter":
        list(tensors(Path(source.location) / ADAPTER))
        base, _ = adapter_base(Path(source.location))
        check_files(base, trust_remote_code=trust_remote_code, quantize=quantize)
    elif source.kind == "folder":
        config = read_json(Path(source.location) / "config.json", description="model's settings", remedy=REMEDY)
        quantised = check_stored(config, source.location, quantize)
        check_config(Path(source.location), config, trust_remote_code=trust_remote_code)
        check_weights(Path(source.location), quantised=quantised)


def check_config(folder: Path, config: Mapping[str, Any], *, trust_remote_code: bool = False) -> None:
    """Raise InputError for a ``config.json`` that names no model, or one that is no causal language model."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        if not trust_remote_code and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise InputError(f"{folder} brings its own code; read it, then say --trust-remote-code to run it")
        return
    if not isinstance(kind, str) or not kind:
        raise InputError(f'{folder / "config.json"} says no "model_type", such as "llama"; {REMEDY}')
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return _check_values(folder, config)
    if kind in CONFIG_MAPPING:
        raise InputError(f"{folder} is a {kind} model, which is no causal language model; give one that writes text on")
    raise InputError(
        f"{folder}: this transformers knows no model type {kind!r}{nearest(kind, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}; "
        "a newer one may (pip install -U transformers)"
    )


def _check_values(folder: Path, config: Mapping[str, Any]) -> None:
    try:
        _parse_config(folder, json.dumps(config, sort_keys=True))
    except Exception as error:  # each configuration class raises its own errors
        raise InputError(f"{folder / 'config.json'} does not fit: {error_text(error)}") from error


@functools.lru_cache(maxsize=64)
def _parse_config(folder: Path, text: str) -> None:
    """Let transformers read the configuration of ``folder``, once for each ``text`` of it: a run checks it several times."""
    from transformers import AutoConfig

    AutoConfig.from_pretrained(folder)


def check_tokenizer(folder: Path) -> None:
    """Raise InputError for a file of the tokenizer in ``folder`` that is no JSON object."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_json(folder / name, description="tokenizer's file", remedy=REMEDY)


def check_weights(folder: Path, *, quantised: bool = False) -> None:
    """Raise InputError for weights in ``folder`` that are missing, cut off or, unless they are ``quantised``, integers."""
    for file in _shards(folder):
        if not file.is_file():
            raise InputError(f"{folder} lacks {file.name}, which its index names; {REMEDY}")
        for name, kind, _ in tensors(file):
            if kind in QUANTISED and not quantised and not name.endswith(MASKS):
                raise InputError(
                    f"{folder} is stored quantised ({name} is {kind}); unlearning needs the model in full precision"
                )


def tensors(file: Path) -> Iterator[tuple[str, str, list[int]]]:
    """(name, dtype, shape) of each tensor in a safetensors file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  it is no mapping
                view = opened.get_slice(name)
                yield name, view.get_dtype(), view.get_shape()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged or cut off ({error_text(error)}); {REMEDY}") from error


def _shards(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        return [file for file in [folder / "model.safetensors"] if file.is_file()]
    index = read_json(folder / INDEX, description="model's index", remedy=REMEDY).get("weight_map")
    if not isinstance(index, dict):
        raise InputError(f"{folder / INDEX} has no weight_map; {REMEDY}")
    return [folder / name for name in sorted(set(map(str, index.values())))]


# -- vocabulary -----------------------------------------------------------------------------------------------------------
def vocabulary(source: Source) -> int | None:
    """The number of tokens that the model has an embedding for; None if unknown before loading."""
    if source.kind == "adapter":
        folder = Path(source.location)
        rows = [shape[0] for name, _, shape in tensors(folder / ADAPTER) if is_embedding(name)]
        return max(rows) if rows else vocabulary(adapter_base(folder)[0])
    if source.kind != "folder":
        return None
    config = read_json(Path(source.location) / "config.json", description="model's settings", remedy=REMEDY)
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return size if isinstance(size, int) else None


def check_ids(size: int | None, ids: Iterable[int], tokenizer: Any, where: str) -> None:
    """Raise InputError where one of the token ``ids`` has no embedding among ``size``."""
    if size is None:
        return
    for i in sorted(set(ids)):
        if i >= size:
            raise InputError(
                f"the tokenizer of {where} has the token {tokenizer.convert_ids_to_tokens(int(i))!r} with the number {i}, "
                f"and the model has embeddings for {size} tokens only; take the model's own tokenizer, or resize the "
                "model's embeddings (resize_token_embeddings) and save it"
            )


def is_embedding(name: str) -> bool:
    """Whether a tensor of an adapter is a whole embedding, not a factor of its update."""
    path = name.split(".")
    return path[-1] == "weight" and ".lora_" not in name and any(module in EMBEDDINGS for module in path)


# -- attention ------------------------------------------------------------------------------------------------------------
ATTENTION_IN = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface", "eager": "", "sdpa": "",
                "flex_attention": ""}  # fmt: skip  # how attention is computed -> the package that it needs


def check_attention(attn: str | None, dtype: str | None = None) -> None:
    """Raise InputError for an implementation of attention that is none, is not installed, or cannot compute in ``dtype``."""
    if attn is None:
        return
    if "/" in attn:
        package = "kernels"
    elif attn in ATTENTION_IN:
        package = ATTENTION_IN[attn]
    else:
        raise InputError(
            f"there is no attention {shortened(attn)}{nearest(attn, ATTENTION_IN)}; there are {', '.join(ATTENTION_IN)}"
        )
    if package and find_spec(package) is None:
        raise InputError(
            f"attn={attn} needs the package {package.replace('_', '-')}, which is not installed; leave it out: sdpa, what "
            "is usual, has torch's own fast kernels"
        )
    if attn.startswith("flash_attention") and dtype == "float32":
        raise InputError(
            f"attn={attn} computes in 16 bits only, and the weights are float32; give --dtype bfloat16 with --adapter lora "
            "too, or leave it out"
        )


# -- device ---------------------------------------------------------------------------------------------------------------
def check_device(device: Any) -> None:
    """Raise InputError for an invalid device, or one that this machine does not have."""
    import torch

    if device is None:
        return
    try:
        requested = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"there is no device {str(device)!r}; say cpu, cuda, cuda:0 or mps") from None
    if requested.type == "cpu":
        return
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    available_type = accelerator.type if accelerator else "none"
    count = torch.accelerator.device_count() if accelerator else 0
    if requested.type != available_type or (requested.index or 0) >= count:
        available = f"{count} of type {available_type}" if accelerator else "no accelerator that torch can use"
        raise InputError(
            f"the device {requested} is not to be had: this machine has {available}; leave --device out, or say cpu"
        )


def usual_device(device: Any) -> Any:
    """``device``, or where none is given the accelerator of this machine, if it has one."""
    import torch

    if device is not None or not torch.accelerator.is_available():
        return device
    return torch.accelerator.current_accelerator()


def error_text(error: Exception) -> str:
    """A library's error as one line; with its class where the message alone is not enough."""
    text = " ".join(str(error).split())[:300].rstrip(".")
    return text if isinstance(error, OSError | ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
