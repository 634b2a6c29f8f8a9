"""Loading of the tokenizer alone: data is checked with it before any weights are read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.models.check import check_files, check_ids, check_tokenizer, error_text, vocabulary
from expunge.models.gguf import dequantised
from expunge.models.locate import adapter_base, resolve


def check_tokens(name: str | os.PathLike[str], tokenizer: Any, ids: Iterable[int]) -> None:
    """Raise InputError where a token of ``ids``, or the one that pads, has no embedding in the model ``name``."""
    check_ids(vocabulary(resolve(name)), {int(tokenizer.pad_token_id), *ids}, tokenizer, os.fspath(name))


def load_tokenizer(
    name: str | os.PathLike[str],
    *,
    trust_remote_code: bool = False,
    revision: str | None = None,
    quantize: str | None = None,
) -> Any:
    """The tokenizer of the model ``name`` (see :func:`~expunge.models.resolve`); of an adapter without one, its base's.

    One without a pad token pads with its end token; padding must not be recognised by that ID, masks come from lengths.
    """
    from transformers import AutoTokenizer

    source = resolve(name, revision=revision)
    check_files(source, trust_remote_code=trust_remote_code, quantize=quantize)
    if source.kind == "adapter" and not (Path(source.location) / "tokenizer_config.json").is_file():
        source, revision = adapter_base(Path(source.location))
    if source.kind in ("folder", "adapter"):
        check_tokenizer(Path(source.location))
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if source.kind == "hub" and revision:
        options["revision"] = revision
    path = str(dequantised(Path(source.location))) if source.kind == "gguf" else source.location
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except Exception as error:  # the tokenizers library raises nothing narrower for a file that it cannot read
        raise InputError(f"{source.location} has no tokenizer that can be loaded: {error_text(error)}.") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise InputError(f"The tokenizer of {name} has neither a pad token nor an end token; set one of them.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
