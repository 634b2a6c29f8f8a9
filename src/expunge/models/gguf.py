"""Models in GGUF files: dequantised once to fp32, kept as safetensors in the user's cache."""

from __future__ import annotations

import hashlib
import sys
from importlib import util
from pathlib import Path

from expunge import cache
from expunge.errors import InputError
from expunge.files import cache_folder, replacing


def dequantised(file: Path) -> Path:
    """The folder with the fp32 copy of ``file`` (model, tokenizer, chat template); made on the first call.

    The folder's name holds the file's sha256, so a changed file gets a new copy.  Raises InputError where the
    package ``gguf`` is missing or the file is not a GGUF file.
    """
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InputError(f"{file} is not a GGUF file: its first four bytes are not 'GGUF'.")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache_folder() / "models" / f"{file.stem}-{digest[:16]}"
    try:
        cache.hold(folder)
    except OSError as error:
        raise InputError(
            f"{cache.unusable(error)}, and {file.name} must be unpacked there; set EXPUNGE_CACHE to another folder"
        ) from error
    if not (folder / "config.json").is_file():
        if util.find_spec("gguf") is None:
            raise InputError(f"Reading {file.name} needs the package gguf: pip install expunge[gguf].")
        with replacing(folder, keep_existing=not folder.exists()) as fresh:
            _convert(file, fresh)
        if message := cache.trim():
            print(f"expunge: {message}", file=sys.stderr)
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Write ``file`` as a plain fp32 safetensors model with its tokenizer into ``folder``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(f"transformers cannot read the GGUF file {file}: {error}") from error
    # The weights are plain fp32 now, but transformers still marks the model as quantised and refuses to save.
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        vars(model).pop(mark, None)
    vars(model.config).pop("quantization_config", None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
