"""A model given in memory, as a :class:`Loaded` like that of :func:`expunge.models.load`: a copy of the user's."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch

from expunge.errors import InputError
from expunge.models.adapt import without_peft_marks
from expunge.models.loaded import Loaded, fingerprint_state
from expunge.models.tokenizer import load_tokenizer

IN_MEMORY = "a model in memory"
ROUNDING = 0.01  # of the largest weight of a tensor: what bfloat16 loses, at most


def is_model(value: Any) -> bool:
    """Whether ``value`` is a model of transformers or PEFT, and not the name of one."""
    return isinstance(value, torch.nn.Module)


def name_of(model: Any) -> str:
    """The name of ``model`` in records: the name or folder that it was loaded from, if any."""
    config = getattr(model, "config", None)
    return str(getattr(config, "_name_or_path", "") or getattr(model, "name_or_path", "") or IN_MEMORY)


def tokenizer_of(requested: Any, model: Any, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer to use: ``requested``, an object (a copy, with a pad token) or a name, or that of the model's name.

    Raises InputError where there is none.
    """
    if requested is not None and not isinstance(requested, str | os.PathLike):
        if not hasattr(requested, "encode") or not hasattr(requested, "eos_token"):
            raise InputError(
                f"tokenizer is a {type(requested).__name__}; give a tokenizer of transformers, or its name"
            )
        tokenizer = copy.deepcopy(requested)
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token is None:
                raise InputError("the tokenizer has neither a pad token nor an end token; set one of them")
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer
    name = name_of(model) if requested is None and is_model(model) else requested or model
    if name == IN_MEMORY:
        raise InputError("the model in memory says no name that a tokenizer could have; give tokenizer=… too")
    try:
        return load_tokenizer(name, trust_remote_code=trust_remote_code)
    except InputError as error:
        if requested is None and is_model(model):
            raise InputError(
                f"the model in memory came without its tokenizer ({error}); give tokenizer=… too"
            ) from None
        raise


def from_memory(model: Any, tokenizer: Any, *, dtype: torch.dtype = torch.float32, device: Any = None) -> Loaded:
    """A copy of ``model`` (of PEFT's: the base with the adapter merged) in ``dtype``, in evaluation mode, all trainable.

    Raises InputError if it is not a causal language model, or is quantised.
    """
    from peft import PeftModel

    check(model)
    copied: Any = copy.deepcopy(model)
    base = name_of(model)
    if isinstance(model, PeftModel):
        base = name_of(model.get_base_model())
        adapted: Any = copied.to(torch.float32)
        copied = without_peft_marks(adapted.merge_and_unload())
    copied = copied.to(dtype)
    copied = copied.to(device) if device is not None else copied
    copied.requires_grad_(True)
    return Loaded(copied.eval(), tokenizer, base, fingerprint_state(copied), None, base)


def check(model: Any, *, adapter: bool = False) -> None:
    """Raise InputError for a ``model`` in memory that cannot be unlearned, or of which no ``adapter`` could be saved."""
    from peft import PeftModel

    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if not hasattr(plain, "generate") or not hasattr(plain, "config") or plain.get_output_embeddings() is None:
        raise InputError(
            f"model is a {type(model).__name__}; give a causal language model of transformers or PEFT, or a name"
        )
    if getattr(plain, "is_quantized", False) or getattr(plain.config, "quantization_config", None):
        raise InputError(
            "the model in memory is quantised; unlearning needs it in full precision, or give its name or folder with "
            "quantize='nf4' and adapter='lora'"
        )
    if isinstance(model, PeftModel) and not hasattr(model.base_model, "merge_and_unload"):
        raise InputError("the PEFT model in memory cannot be merged into its base, which is what is unlearned")
    if adapter and (isinstance(model, PeftModel) or name_of(model) == IN_MEMORY):
        raise InputError(
            "an adapter is saved for a base that can be loaded again, and this model is in memory only; save it with "
            "save_pretrained and give the folder, or say merge=True"
        )


def check_base(in_memory: Loaded, base: Loaded) -> None:
    """Raise InputError if ``in_memory`` has other weights than ``base``, the model that its adapter will be loaded on; only
    the dtype may differ.
    """
    base_state = base.model.state_dict()
    for name, weight in in_memory.model.state_dict().items():
        base_weight = base_state.get(name)
        close = base_weight is not None and base_weight.shape == weight.shape
        if not close or (weight.to("cpu") - base_weight.to("cpu")).abs().max() > ROUNDING * base_weight.abs().max():
            raise InputError(
                f"an adapter is saved for the base {in_memory.source}, and the model in memory has other weights "
                f"({name}); save it with save_pretrained and give the folder, or say merge=True"
            )
