"""A frozen base in 4 or 8 bits (QLoRA), by bitsandbytes: what can be held so, and the settings it is loaded with.

``nf4``: NormalFloat in blocks of 64 with double quantisation, 4.13 bits a weight; ``int8``: LLM.int8(), a scale a row.  Only
linear layers are quantised, the output embedding is not.  Dettmers et al. 2023, arXiv:2305.14314; 2022, arXiv:2208.07339.
"""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from expunge.errors import InputError, nearest
from expunge.files import read_json
from expunge.models.locate import Source, adapter_base

Kind = Literal["nf4", "int8"]
KINDS: tuple[str, ...] = get_args(Kind)
log = logging.getLogger(__name__)
MARK = "base_quantization"  # in the metadata of an adapter's file: how its base was quantised while it trained


@functools.cache
def warn_once(message: str) -> None:
    """Log ``message`` as a warning, once a process: a run loads a model several times."""
    log.warning(message)


def check(kind: str | None) -> None:
    """Raise InputError for a ``kind`` that is none, or where bitsandbytes is not installed or too old."""
    from transformers.utils.import_utils import is_bitsandbytes_available

    if kind is None:
        return
    if kind not in KINDS:
        raise InputError(f"quantize must be {' or '.join(KINDS)}, not {kind!r}{nearest(kind, KINDS)}")
    if not is_bitsandbytes_available():
        raise InputError(f"quantize={kind} needs the package bitsandbytes, 0.46.1 or newer: pip install 'expunge[gpu]'")


def compute_dtype(chosen: torch.dtype | None, device: Any) -> torch.dtype:
    """The number format of an nf4 layer's products: ``chosen``, else bfloat16 on a card that computes in it, else float32.

    >>> compute_dtype(None, "cpu"), compute_dtype(torch.bfloat16, "cpu")
    (torch.float32, torch.bfloat16)
    """
    if chosen is not None:
        return chosen
    on_card = torch.device(device or "cpu").type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if on_card else torch.float32


def placed(device: Any) -> torch.device:
    """Where a quantised model is loaded: ``device``, with the number of the card, which training compares with its own.

    >>> placed(None), placed("cuda:1")
    (device(type='cpu'), device(type='cuda', index=1))
    """
    named = torch.device(device or "cpu")
    if named.type != "cuda" or named.index is not None or not torch.cuda.is_available():
        return named
    return torch.device("cuda", torch.cuda.current_device())


def settings(kind: str, compute: torch.dtype, not_converted: Sequence[str] | None = None) -> Any:
    """transformers' ``BitsAndBytesConfig`` for ``kind``; the layers ``not_converted`` stay as they are (None: transformers'
    choice, the output embedding).
    """
    from transformers import BitsAndBytesConfig

    skipped = {"llm_int8_skip_modules": list(not_converted)} if not_converted else {}
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        **skipped,
    )


def quiet() -> None:
    """Leave out the notice at every pass of an int8 layer that its inputs are cast to float16: LLM.int8() works so."""
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_no_cast)
    warnings.filterwarnings("ignore", message="MatMul8bitLt")  # of older versions


def _is_no_cast(record: logging.LogRecord) -> bool:
    return "MatMul8bitLt" not in str(record.msg)


# -- what is stored quantised ---------------------------------------------------------------------------------------------
def stored(config: Mapping[str, Any]) -> str | None:
    """How weights with this ``config.json`` are stored quantised: ``nf4``, ``int8``, another method's name, or None.

    >>> stored({}), stored({"quantization_config": {"quant_method": "gptq"}})
    (None, 'gptq')
    >>> stored({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}})
    'int8'
    """
    said = config.get("quantization_config")
    if not said:
        return None
    if not isinstance(said, Mapping):
        return "an unnamed method"
    method = str(said.get("quant_method") or ("bitsandbytes" if _bits(said) else "an unnamed method"))
    return _bits(said) or method if method == "bitsandbytes" else method


def _bits(said: Mapping[str, Any]) -> str | None:
    if said.get("load_in_8bit"):
        return "int8"
    return str(said.get("bnb_4bit_quant_type", "fp4")) if said.get("load_in_4bit") else None


def check_stored(config: Mapping[str, Any], where: Any, kind: str | None) -> bool:
    """Whether the weights at ``where`` are stored as ``kind`` already, by their ``config.json``.

    Raises InputError where they are stored quantised in any other way.
    """
    found = stored(config)
    if found is None:
        return False
    if found not in KINDS:
        raise InputError(
            f"{where} is stored quantised ({found}), which expunge cannot use; give the model in full precision that it was "
            "made of, with --quantize nf4 or int8 for less memory"
        )
    if kind is None:
        raise InputError(
            f"{where} is stored quantised ({found}); unlearning needs the model in full precision, so give the one it was "
            f"made of, or say --quantize {found} (with --adapter lora) to train an adapter on it as it is"
        )
    if kind != found:
        raise InputError(f"{where} is stored as {found}; say --quantize {found}, or give the model it was made of")
    return True


# -- what an adapter says of its base -------------------------------------------------------------------------------------
def metadata(kind: str | None) -> dict[str, str]:
    """The metadata of an adapter's file: with the kind of its base, if that is quantised."""
    return {"format": "pt"} | ({MARK: kind} if kind else {})


def mismatch(file: Path, kind: str | None) -> str | None:
    """A warning where the adapter in ``file`` was trained on a base of another precision than ``kind``."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        trained = (opened.metadata() or {}).get(MARK)
    if trained == kind:
        return None
    folder = file.parent
    if trained is None:
        return (
            f"the adapter {folder} was trained on a base in full precision, as far as it says, and the base is in {kind} "
            "now: its outputs are others than in training"
        )
    remedy = f"--quantize {trained} loads the base as it was"
    now = f"in {kind}" if kind else "not quantised"
    return f"the adapter {folder} was trained on its base in {trained}, and the base is {now} now; {remedy}"


# -- what is held quantised -----------------------------------------------------------------------------------------------
def elements(p: Tensor) -> int:
    """The weights in ``p``; 4-bit ones are packed two in a byte."""
    state = getattr(p, "quant_state", None)
    return p.numel() if state is None else math.prod(state.shape)


def is_quantized(p: Tensor) -> bool:
    """Whether ``p`` holds weights in integers."""
    return type(p).__name__ in ("Params4bit", "Int8Params")


def check_held(model: Any, where: Any, kind: str) -> None:
    """Raise InputError where bitsandbytes has quantised nothing of ``model``; warn where it is less than half of the
    weights, embeddings left out, as in a mixture of experts whose weights are one tensor.
    """
    ends = {id(p) for end in (model.get_input_embeddings(), model.get_output_embeddings()) for p in end.parameters()}
    inner = [p for p in model.parameters() if id(p) not in ends]
    held, total = sum(elements(p) for p in inner if is_quantized(p)), sum(map(elements, inner))
    if not held:
        raise InputError(f"bitsandbytes can hold no layer of {where} in {kind}; leave quantize out")
    if held < total / 2:
        warn_once(f"only {held / total:.0%} of the weights of {where} are held in {kind}, embeddings left out")


def described(model: nn.Module, kind: str, compute: torch.dtype) -> dict[str, Any]:
    """What a record says of the quantised weights of ``model``: how, how many, and by which version."""
    import importlib.metadata

    held = [p for p in model.parameters() if is_quantized(p)]
    said = {
        "kind": kind,
        "parameters": sum(map(elements, held)),
        "bitsandbytes": importlib.metadata.version("bitsandbytes"),
    }
    settings = {"double": True, "compute_dtype": str(compute).removeprefix("torch.")} if kind == "nf4" else {}
    return said | settings


def config_of(source: Source) -> dict[str, Any]:
    """The ``config.json`` of ``source``, of an adapter its base's; empty where it cannot be read before loading."""
    if source.kind == "adapter":
        return config_of(adapter_base(Path(source.location))[0])
    if source.kind == "gguf":
        return {}
    if source.kind == "hub":
        from transformers import PretrainedConfig

        return dict(PretrainedConfig.get_config_dict(source.location)[0])
    return read_json(Path(source.location) / "config.json", description="model's settings", remedy="download it again")
