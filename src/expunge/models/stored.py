"""The fingerprint of a model's files, for one in memory whose weights are quantised: that of the same model in full.

The tensors are read one by one, cast to the number format that the model would be loaded in, with an adapter's update added
as PEFT adds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from expunge.errors import InputError
from expunge.models.gguf import dequantised
from expunge.models.loaded import fingerprint_tensors
from expunge.models.locate import Source
from expunge.models.lora import FACTOR, PREFIX, Adapter, scaling
from expunge.models.lora import factors as plain_factors
from expunge.models.quantize import is_quantized

QUANTISED = (".absmax", ".SCB")  # what bitsandbytes saves beside its weights


def fingerprint(
    source: Source, model: nn.Module, dtype: torch.dtype, *, revision: str | None = None, adapter: Adapter | None = None
) -> str:
    """What :func:`expunge.models.loaded.fingerprint_state` would say of ``source`` in full precision, loaded in ``dtype``,
    with ``adapter`` merged.

    ``model``: the same in memory, quantised, which says the names and number formats.  Where its names are not those of the
    files (they are stored quantised, or fused on loading), the tensors count as they are in the files, the adapter's too.
    """
    files = _files(_folder(source, revision))
    names = _names(model, dtype)
    held: dict[int, str] = {}  # a tied weight is in the files under one of its names
    for name, (p, _) in names.items():
        if name in files:
            held[id(p)] = name
    unknown = any(id(p) not in held for p, _ in names.values()) or any(name.endswith(QUANTISED) for name in files)
    if unknown or not _is_plain(adapter):
        factors = adapter.state if adapter else {}
        return fingerprint_tensors(
            [*((name, _read(files[name], name)) for name in sorted(files)), *sorted(factors.items())]
        )
    updates = _updates(adapter) if adapter else {}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, (p, kind) in sorted(names.items(), key=lambda item: item[0]):
            value = _read(files[held[id(p)]], held[id(p)])
            if (update := updates.get(name.removesuffix(".weight"))) is not None:
                value = value.float() + _product(*update, adapter)
            yield name, value.to(kind)

    return fingerprint_tensors(tensors())


def _is_plain(adapter: Adapter | None) -> bool:
    """Whether the update of ``adapter`` is a plain sum of products, whatever PEFT can do besides."""
    try:
        return not adapter or bool(plain_factors(adapter))
    except InputError:
        return False


def _folder(source: Source, revision: str | None) -> Path:
    if source.kind == "gguf":
        return dequantised(Path(source.location))
    if source.kind == "hub":
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(source.location, revision=revision, allow_patterns=["*.safetensors"]))
    return Path(source.location)


def _files(folder: Path) -> dict[str, Path]:
    """Tensor -> the file in ``folder`` that holds it."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as opened:
        value: Tensor = opened.get_tensor(name)
    return value


def _names(model: nn.Module, dtype: torch.dtype) -> dict[str, tuple[Tensor, torch.dtype]]:
    """Name in the state dict -> the tensor, and its number format in full precision."""
    out: dict[str, tuple[Tensor, torch.dtype]] = {
        n: (p, dtype if is_quantized(p) else p.dtype) for n, p in model.named_parameters(remove_duplicate=False)
    }
    for prefix, module in model.named_modules():
        for name, b in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                out[f"{prefix}.{name}" if prefix else name] = (b, b.dtype)
    return out


def _updates(adapter: Adapter) -> dict[str, tuple[str, Tensor, Tensor]]:
    """module -> its name, A and B, in fp32."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, value in adapter.state.items():
        if match := FACTOR.fullmatch(name.removeprefix(PREFIX)):
            pairs.setdefault(match["module"], {})[match["side"]] = value.float()
    return {module: (module, pair["A"], pair["B"]) for module, pair in pairs.items()}


def _product(module: str, a: Tensor, b: Tensor, adapter: Any) -> Tensor:
    """s·(B·A), in the order in which PEFT multiplies."""
    config: Mapping[str, Any] = adapter.config
    delta = b @ a
    return (delta.T if config.get("fan_in_fan_out") else delta) * scaling(config, module, a.shape[0])
