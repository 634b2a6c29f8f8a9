"""Load a model, put LoRA factors on it, save what came out: everything that reads or writes weights.

What is loaded: a Hub name, a folder, a GGUF file, or a PEFT adapter (its base with the adapter merged: that
is then the target).  What is saved loads in plain transformers and PEFT.  Weights are safetensors, never
pickles.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from expunge.adapters import Adapter, factors, read_adapter
from expunge.errors import InputError
from expunge.gguf import dequantised
from expunge.resolve import ALIAS, Source, adapter_base, resolve
from expunge.saving import save, save_adapter
from expunge.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = [
    "ALIAS",
    "Loaded",
    "Source",
    "adapted",
    "add",
    "attach_lora",
    "detach_lora",
    "fingerprint_state",
    "linear_layers",
    "load",
    "resolve",
    "save",
    "save_adapter",
    "train_only",
    "trainable",
]


@dataclass(frozen=True)
class Loaded:
    """A model in memory, and where it came from.

    ``source``: the name as the user wrote it; ``fingerprint``: see :func:`fingerprint_state`; ``adapter``:
    the folder of the adapter that was merged into the model, if any; ``base``: the Hub name or folder of the
    model without that adapter, which an adapter saved later names as its base.
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
    if plain.config.get_text_config().tie_word_embeddings and (shared := _shared(plain, adapter)):
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
    return _forgets_peft(model.merge_and_unload()), base


def _forgets_peft(plain: Any) -> Any:
    """``plain`` without PEFT's marks, for which it would take the next adapter for a second one."""
    vars(plain).pop("peft_config", None)
    plain._hf_peft_config_loaded = False
    return plain


def _shared(model: Any, adapter: Adapter) -> str | None:
    """The embedding that ``adapter`` changes although input and output of ``model`` share it, if any."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    return next((name for name in names if any(f".{name}.lora_" in key for key in adapter.state)), None)


def attach_lora(
    model: Any,
    *,
    r: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    seed: int = 0,
) -> PeftModel:
    """``model`` with LoRA factors (fp32) that train, all else frozen; starts as the same function (B = 0).

    ``target_modules``: "all-linear" (the output embedding excepted), a regular expression on full module
    names, or a list of name endings.  The factors depend on ``seed`` only; the global random state is left as
    it was.
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
            what = f"LoRA (r={r}, target_modules={target_modules!r})"
            raise InputError(f"{what} cannot be attached: {reason}.") from error


def train_only(model: nn.Module, pattern: str) -> None:
    """Freeze every weight of ``model`` but those whose name ``pattern``, a regular expression, is found in.

    Raises InputError where that is none, or ``pattern`` is not a regular expression.
    """
    chosen = set(_matching((name for name, _ in model.named_parameters()), pattern))
    for name, p in model.named_parameters():
        p.requires_grad_(name in chosen)


def linear_layers(model: nn.Module, pattern: str) -> list[str]:
    """The linear layers of ``model`` whose weight's name ``pattern`` is found in: what LoRA adapts in their place.

    Raises InputError as :func:`train_only`.
    """
    from transformers.pytorch_utils import Conv1D

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return [name.removesuffix(".weight") for name in _matching((f"{name}.weight" for name in linear), pattern)]


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    """``names`` that ``pattern`` is found in."""
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise InputError(f"trainable={pattern!r} is not a regular expression: {error}") from None
    everything = list(names)
    if not (found := [name for name in everything if search(name)]):
        raise InputError(
            f"trainable={pattern!r} matches no weight that could train; weights have names such as {everything[0]} "
            f"and {everything[-1]}"
        )
    return found


def detach_lora(model: PeftModel) -> tuple[Any, Adapter]:
    """The plain model under ``model``, its weights as they were before :func:`attach_lora`, and the factors apart (a copy
    on the CPU).  ``model`` is used up.
    """
    from peft import get_peft_model_state_dict

    name = model.active_adapter
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    config = json.loads(json.dumps(model.peft_config[name].to_dict(), default=sorted)) | {"inference_mode": True}
    kept = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}
    return _forgets_peft(model.unload()), Adapter(kept, config)  # type: ignore[operator]


def adapted(model: Any, adapter: Adapter) -> dict[str, Tensor]:
    """module -> the weight that ``adapter`` changes, (out, in), as a view into plain ``model``.

    Raises InputError where that is no fp32 matrix of a linear layer, or one that ``model`` uses twice.
    """
    from transformers.pytorch_utils import Conv1D

    if model.config.get_text_config().tie_word_embeddings and (shared := _shared(model, adapter)):
        raise InputError(f"LoRA on {shared}, a weight that the model uses twice, cannot be added to it; leave it out.")
    views = {}
    for name in factors(adapter):
        module = model.get_submodule(name)
        weight = getattr(module, "weight", None)
        if not isinstance(module, nn.Linear | Conv1D) or weight is None or weight.dtype != torch.float32:
            raise InputError(f"LoRA on {name} cannot be added to the model: it is no linear layer in fp32.")
        views[name] = weight.detach().T if isinstance(module, Conv1D) else weight.detach()
    return views


@torch.no_grad()
def add(model: Any, adapter: Adapter) -> None:
    r"""Add the update of ``adapter`` to the weights of plain ``model`` in place, in fp32: :math:`W \leftarrow W + s\,B A`.

    Raises InputError as :func:`adapted`.
    """
    weights = adapted(model, adapter)
    for name, (a, b) in factors(adapter).items():
        weights[name].add_(b.to(weights[name].device) @ a.to(weights[name].device))


def trainable(model: nn.Module) -> tuple[int, int]:
    """(parameters that train, all parameters); a tied weight counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, moves in sizes if moves), sum(n for n, _ in sizes)


def fingerprint_state(model: nn.Module) -> str:
    r"""``sha256:`` and the hex digest of the state dict; equal weights give equal fingerprints anywhere.

    The definition is fixed: for each name in sorted order the UTF-8 bytes of ``name\0dtype\0d1,d2,…\0``
    (dtype as in ``float32``), then the tensor's bytes in row-major, little-endian order.  Tied weights count
    under each name.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        shape = ",".join(map(str, value.shape))
        digest.update(f"{name}\0{str(value.dtype).removeprefix('torch.')}\0{shape}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"
