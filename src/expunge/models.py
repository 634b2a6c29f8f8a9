"""Load a model, put LoRA factors on it, save what came out: everything that reads or writes weights.

What is loaded: a Hub name, a folder, a GGUF file, or a PEFT adapter (its base with the adapter merged: that is then
the target).  What is saved loads in plain transformers and PEFT.  Weights are safetensors, never pickles.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from expunge.adapters import Adapter, concatenate
from expunge.errors import InputError
from expunge.gguf import dequantised, replacing
from expunge.resolve import ALIAS, Source, resolve

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["ALIAS", "Loaded", "Source", "attach_lora", "fingerprint_state", "load", "resolve", "save", "trainable"]

MARKERS = ("config.json", "adapter_config.json")  # a folder that holds one of them may be replaced by `save`


@dataclass(frozen=True)
class Loaded:
    """A model in memory, and where it came from.

    ``source``: the name as the user wrote it; ``fingerprint``: see :func:`fingerprint_state`; ``adapter``: the folder
    of the adapter that was merged into the model, if any; ``base``: the Hub name or folder of the model without that
    adapter, which an adapter saved later names as its base.
    """

    model: Any
    tokenizer: Any
    source: str
    fingerprint: str
    adapter: str | None
    base: str


def load(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> Loaded:
    """The causal language model ``name`` (see :func:`resolve`) and its tokenizer, in evaluation mode.

    An adapter is merged into its base in fp32, then cast to ``dtype``.  A tokenizer without a pad token pads with its
    end token; nothing may tell padding by that id, attention masks come from lengths.

    Raises InputError where the model cannot be found, is no causal language model, lacks weights, is stored quantised
    or as a pickle, or where an adapter does not fit its base.
    """
    source = resolve(name, revision=revision)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if source.kind == "adapter":
        model, tokenizer, base = _load_adapter(Path(source.location), options)
        model = model.to(dtype)
    else:
        model, tokenizer, base = _load_plain(source, dtype, options | ({"revision": revision} if revision else {}))
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise InputError(f"The tokenizer of {name} has neither a pad token nor an end token; set one of them.")
        tokenizer.pad_token = tokenizer.eos_token
    model.name_or_path = model.config._name_or_path = base
    model = model.to(device).eval() if device is not None else model.eval()
    adapter = source.location if source.kind == "adapter" else None
    return Loaded(model, tokenizer, os.fspath(name), fingerprint_state(model), adapter, base)


def _load_plain(source: Source, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, Any, str]:
    """(model, tokenizer, base name) of a model that is no adapter."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = str(dequantised(Path(source.location))) if source.kind == "gguf" else source.location
    options = options if source.kind == "hub" else {k: v for k, v in options.items() if k != "revision"}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"{source.location} cannot be loaded as a causal language model: {reason}.") from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{source.location} lacks {len(missing)} of its weights, the first is {missing[0]}.")
    if getattr(model.config, "quantization_config", None):
        raise InputError(f"{source.location} is stored quantised; unlearning needs the model in full precision.")
    return model, tokenizer, source.base or where


def _load_adapter(folder: Path, options: dict[str, Any]) -> tuple[Any, Any, str]:
    """(base with the adapter merged in fp32, tokenizer, name of the base)."""
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoTokenizer

    adapter = read_adapter(folder)
    name = adapter.config.get("base_model_name_or_path")
    if not name:
        raise InputError(f"{folder / 'adapter_config.json'} does not say which base the adapter belongs to.")
    if (folder / name).is_dir():
        name = str(folder / name)
    revision = adapter.config.get("revision")
    try:
        source = resolve(name, revision=revision)
    except InputError as error:
        raise InputError(f"The base {name} of the adapter {folder} cannot be found. {error}") from error
    if source.kind == "adapter":
        raise InputError(f"The base {name} of the adapter {folder} is itself an adapter; merge and save that one first.")
    plain, tokenizer, base = _load_plain(source, torch.float32, options | ({"revision": revision} if revision else {}))
    try:
        model = PeftModel.from_pretrained(plain, folder)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"The adapter {folder} does not fit its base {name}.") from error
    if set(get_peft_model_state_dict(model, save_embedding_layers=False)) != set(adapter.state):
        raise InputError(f"The adapter {folder} does not fit its base {name}: they do not name the same modules.")
    if not hasattr(model.base_model, "merge_and_unload"):
        raise InputError(f"The adapter {folder} ({adapter.config['peft_type']}) cannot be merged into a model.")
    merged: Any = model.merge_and_unload()
    vars(merged).pop("peft_config", None)  # else PEFT takes the next adapter for a second one
    merged._hf_peft_config_loaded = False
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=options["trust_remote_code"])
    return merged, tokenizer, base


def read_adapter(folder: Path) -> Adapter:
    """The adapter in ``folder`` as plain values."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return Adapter(load_file(folder / "adapter_model.safetensors"), config)


def attach_lora(
    model: Any,
    *,
    r: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    seed: int = 0,
) -> PeftModel:
    """``model`` with LoRA factors (fp32) that train, everything else frozen; starts as the same function (B = 0).

    ``target_modules``: "all-linear" (the output embedding excepted), a regular expression on full module names, or a
    list of name endings.  The factors depend on ``seed`` only; the global random state is left as it was.
    """
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            config = LoraConfig(
                r=r,
                lora_alpha=alpha,  # type: ignore[arg-type]
                lora_dropout=dropout,
                target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
                task_type="CAUSAL_LM",
            )
            return get_peft_model(model, config, autocast_adapter_dtype=True)  # type: ignore[return-value]
        except ValueError as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise InputError(f"LoRA (r={r}, target_modules={target_modules!r}) cannot be attached: {reason}.") from error


def trainable(model: nn.Module) -> tuple[int, int]:
    """(parameters that train, all parameters); a tied weight counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, moves in sizes if moves), sum(n for n, _ in sizes)


def fingerprint_state(model: nn.Module) -> str:
    r"""``sha256:`` and the hex digest of the state dict; equal weights give equal fingerprints on every device.

    The definition is fixed: for each name in sorted order the UTF-8 bytes of ``name\0dtype\0d1,d2,…\0`` (dtype as in
    ``float32``), then the tensor's bytes in row-major, little-endian order.  Tied weights count under each name.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        shape = ",".join(map(str, value.shape))
        digest.update(f"{name}\0{str(value.dtype).removeprefix('torch.')}\0{shape}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"


def save(
    model: Any, tokenizer: Any, folder: str | os.PathLike[str], *, base: Loaded | None = None, merge: bool = False
) -> Path:
    """Write ``model`` and its tokenizer to ``folder``, so that plain transformers or PEFT loads it.

    A plain model is saved whole.  Of a PEFT model the adapter is saved, or with ``merge`` a whole model, without
    touching ``model``.  ``base`` is what :func:`load` gave before the adapter was attached: if that was an adapter
    merged into its base, the two adapters are saved as one on that base (exactly: see :mod:`expunge.adapters`).
    The folder appears when it is complete.  An existing model there is replaced; anything else raises InputError.
    """
    from peft import PeftModel

    path = Path(folder).expanduser().resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())) and not any((path / m).is_file() for m in MARKERS):
        raise InputError(f"{path} exists and is no model's folder; give another folder for the output.")
    with replacing(path) as fresh:
        if not isinstance(model, PeftModel):
            model.save_pretrained(fresh)
        elif merge:
            merged: Any = copy.deepcopy(model).merge_and_unload()
            merged.save_pretrained(fresh)
        else:
            _save_adapter(model, fresh, base)
        tokenizer.save_pretrained(fresh)
    return path


def _save_adapter(model: PeftModel, folder: Path, base: Loaded | None) -> None:
    """Write the active adapter of ``model``, as one with the adapter that is merged into its base, if there is one."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = copy.copy(model.peft_config[model.active_adapter])
    config.inference_mode = True
    if base is not None:
        config.base_model_name_or_path = base.base
    config.save_pretrained(str(folder))
    state = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    file = folder / "adapter_config.json"
    if base is not None and base.adapter is not None:
        written = json.loads(file.read_text(encoding="utf-8"))
        one = concatenate(read_adapter(Path(base.adapter)), Adapter(state, written))
        settings = {**one.config, "base_model_name_or_path": base.base, "inference_mode": True}
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        state = dict(one.state)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
