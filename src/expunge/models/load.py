"""Load a model: a Hub name, a folder, a GGUF file, or a PEFT adapter (its base with the adapter merged: that is then the
target).  Weights are safetensors, never pickles.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from expunge.errors import InputError
from expunge.models import quantize as quantization
from expunge.models import stored
from expunge.models.adapt import add_beside, fused_projections, merged
from expunge.models.check import (
    ADAPTER,
    check_attention,
    check_device,
    check_files,
    error_text,
    is_embedding,
    vocabulary,
)
from expunge.models.gguf import dequantised
from expunge.models.loaded import Loaded, check_generation, fingerprint_state
from expunge.models.locate import Source, adapter_base, resolve
from expunge.models.lora import read_adapter
from expunge.models.tokenizer import load_tokenizer

# Buffers that old checkpoints store, and the parts of a multimodal or self-speculative model beside its language model.
HARMLESS = re.compile(
    r"(rotary_emb\.inv_freq|masked_bias)$|(^|\.)(visual|vision\w*|audio\w*|multi_modal_projector|mm_projector|mtp)\."
)


def load(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    attn: str | None = None,
    quantize: str | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Loaded:
    """The causal language model ``name`` (see :func:`resolve`) and its tokenizer, in evaluation mode.

    An adapter is merged into its base in fp32, then cast to ``dtype``.  ``attn``: transformers' ``attn_implementation``, its
    own choice if left out.

    ``quantize``: ``nf4`` or ``int8`` holds the linear layers but the output embedding in 4 or 8 bits (bitsandbytes), and
    ``dtype`` is of the other weights.  An adapter is not merged then, but runs beside its base.  An nf4 layer computes in
    ``compute_dtype`` (bfloat16 on a CUDA device, float32 on a CPU).  The fingerprint is that of the model in full precision.

    Raises InputError where the model cannot be found, is no causal language model, has other weights than its
    configuration says, is stored quantised (in another way than ``quantize``) or as a pickle, where an adapter does not fit
    its base, and for a device that is not there, or an attention or a quantisation that is not installed.
    """
    check_device(device)
    check_attention(attn)
    quantization.check(quantize)
    source = resolve(name, revision=revision)
    check_files(source, trust_remote_code=trust_remote_code, quantize=quantize)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    options |= {"attn_implementation": attn} if attn else {}
    if source.kind == "adapter" and (warning := quantization.mismatch(Path(source.location) / ADAPTER, quantize)):
        quantization.warn_once(warning)
    described = None
    if quantize:
        compute = quantization.compute_dtype(compute_dtype, device)
        options |= {"revision": revision} if revision else {}
        model, base, fingerprint = _load_quantised(source, dtype, options, quantize, compute, device)
        described = quantization.described(model, quantize, compute)
    elif source.kind == "adapter":
        model, base = _load_adapter(Path(source.location), options)
        model = model.to(dtype)
    else:
        model, base = _load_plain(source, dtype, options | ({"revision": revision} if revision else {}))
    check_generation(model)
    tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code, revision=revision, quantize=quantize)
    model.name_or_path = model.config._name_or_path = base
    if not quantize:  # else it is on the device already
        model = model.to(device) if device is not None else model
        fingerprint = fingerprint_state(model)
    adapter = source.location if source.kind == "adapter" else None
    return Loaded(model.eval(), tokenizer, os.fspath(name), fingerprint, adapter, base, described)


def _load_plain(
    source: Source, dtype: torch.dtype, options: dict[str, Any], quantize: str | None = None
) -> tuple[Any, str]:
    """(model, base name) of a model that is no adapter."""
    from transformers import AutoModelForCausalLM

    where = str(dequantised(Path(source.location))) if source.kind == "gguf" else source.location
    options = options if source.kind == "hub" else {k: v for k, v in options.items() if k != "revision"}
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            where,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        )
        model, report = found
    except Exception as error:  # a model is built of its settings, each of which can fail in a way of its own
        raise InputError(
            f"{source.location} cannot be loaded as a causal language model: {error_text(error)}."
        ) from error
    _check_report(report, source.location)
    if not quantize:
        quantization.check_stored(model.config.to_dict(), source.location, None)
    return model, source.base or where


def _load_quantised(
    source: Source, dtype: torch.dtype, options: dict[str, Any], kind: str, compute: torch.dtype, device: Any
) -> tuple[Any, str, str]:
    """(model, base name, fingerprint of the files): quantised to ``kind``, an adapter's update beside the weights."""
    adapter, plain = None, source
    if source.kind == "adapter":
        adapter = read_adapter(Path(source.location))
        plain, revision = adapter_base(Path(source.location))
        options = options | ({"revision": revision} if revision else {})
    config = quantization.config_of(plain)
    chosen: dict[str, Any] = {"device_map": {"": quantization.placed(device)}}
    if not quantization.check_stored(config, plain.location, kind):
        chosen["quantization_config"] = quantization.settings(kind, compute, _not_converted(plain, config, options))
    quantization.quiet()
    model, base = _load_plain(plain, dtype, options | chosen, kind)
    quantization.check_held(model, plain.location, kind)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = compute  # what is stored quantised says one of its own
    model.requires_grad_(False)
    fingerprint = stored.fingerprint(plain, model, dtype, revision=options.get("revision"), adapter=adapter)
    if adapter:
        try:
            add_beside(model, adapter)
        except InputError:  # no plain LoRA: it runs in PEFT's own layers, and no adapter can be trained on top
            model = _with_adapter(model, Path(source.location), base)
    return model, base, fingerprint


def _not_converted(source: Source, config: Mapping[str, Any], options: Mapping[str, Any]) -> list[str] | None:
    """The layers of a model with state-space blocks that stay in full precision, as kernels read their weights past the
    layers; None for transformers' own choice.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if not any("mamba" in text or "ssm" in text for text in (*config, str(config.get("model_type")))):
        return None
    known = {key: value for key, value in options.items() if key in ("trust_remote_code", "revision")}
    with torch.device("meta"):
        skeleton: Any = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(source.location, **known), trust_remote_code=known["trust_remote_code"]
        )
    head = skeleton.get_output_embeddings()
    return [*(name for name, module in skeleton.named_modules() if module is head), *fused_projections(skeleton)]


def _check_report(report: Mapping[str, Any], where: str) -> None:
    """Raise InputError where weights and configuration are not of one model, by what transformers says of the loading."""
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{where} lacks {len(missing)} of its weights, the first is {missing[0]}.")
    if wrong := sorted(report.get("mismatched_keys") or ()):
        name, stored, expected = wrong[0]
        raise InputError(
            f"{where}: {name} is {list(stored)} in the file and {list(expected)} by config.json; they are not of one model."
        )
    if extra := sorted(name for name in report["unexpected_keys"] if not HARMLESS.search(name)):
        raise InputError(
            f"{where} holds weights that its config.json has no place for ({len(extra)}, the first is {extra[0]}): they are "
            "not of one model, or more than a language model; to do without them, load it in transformers and save it again."
        )


def _load_adapter(folder: Path, options: dict[str, Any]) -> tuple[Any, str]:
    """(base with the adapter merged in fp32, name of the base)."""
    source, revision = adapter_base(folder)
    options = options | ({"revision": revision} if revision else {})
    plain, base = _load_plain(source, torch.float32, options)
    name, config = source.base or source.location, read_adapter(folder).config
    model = _with_adapter(plain, folder, name)
    if not hasattr(model.base_model, "merge_and_unload"):
        raise InputError(
            f"The adapter {folder} ({config.get('peft_type')}) cannot be merged into a model; give one that can, "
            "such as LoRA."
        )
    if config.get("layer_replication"):
        raise InputError(f"The adapter {folder} repeats layers of its base (layer_replication); it cannot be merged.")
    try:
        return merged(model), base
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"The adapter {folder} cannot be merged into its base {name}: {error_text(error)}.") from error


def _with_adapter(plain: Any, folder: Path, name: str) -> Any:
    """PEFT's model of ``plain``, the base ``name``, with the adapter in ``folder``."""
    from peft import PeftModel, get_peft_model_state_dict

    adapter = read_adapter(folder)
    rows = vocabulary(Source("adapter", str(folder), None))
    if rows and rows != plain.get_input_embeddings().num_embeddings:
        plain.resize_token_embeddings(rows, mean_resizing=False)  # the adapter brings these embeddings whole
    try:
        model = PeftModel.from_pretrained(plain, folder)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"The adapter {folder} does not fit its base {name}.") from error
    held = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    stored = {key for key in adapter.state if ".lora_" in key or not (".base_layer." in key or is_embedding(key))}
    if held - set(adapter.state) or stored - held:
        raise InputError(f"The adapter {folder} does not fit its base {name}: their modules have other names.")
    return model
