"""A model that is in memory already, as :func:`expunge.models.load` would have given it: a copy of the user's."""

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
    """What records call ``model``: the name or folder that it was loaded from, if any."""
    config = getattr(model, "config", None)
    return str(getattr(config, "_name_or_path", "") or getattr(model, "name_or_path", "") or IN_MEMORY)


def tokenizer_of(given: Any, model: Any, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer to use: ``given``, an object (a copy, with a pad token) or a name, or that of the model's name.

    Raises InputError where there is none.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        if not hasattr(given, "encode") or not hasattr(given, "eos_token"):
            raise InputError(f"tokenizer is a {type(given).__name__}; give a tokenizer of transformers, or its name")
        own = copy.deepcopy(given)
        if own.pad_token_id is None:
            if own.eos_token is None:
                raise InputError("the tokenizer has neither a pad token nor an end token; set one of them")
            own.pad_token = own.eos_token
        return own
    name = name_of(model) if given is None and is_model(model) else given or model
    if name == IN_MEMORY:
        raise InputError("the model in memory says no name that a tokenizer could have; give tokenizer=… too")
    try:
        return load_tokenizer(name, trust_remote_code=trust_remote_code)
    except InputError as error:
        if given is None and is_model(model):
            raise InputError(
                f"the model in memory came without its tokenizer ({error}); give tokenizer=… too"
            ) from None
        raise


def from_memory(model: Any, tokenizer: Any, *, dtype: torch.dtype = torch.float32, device: Any = None) -> Loaded:
    """A copy of ``model`` (of PEFT's: the base with the adapter merged) in ``dtype``, in evaluation mode, all of it free.

    Raises InputError for what is no causal language model, or is quantised.
    """
    from peft import PeftModel

    check(model)
    own: Any = copy.deepcopy(model)
    base = name_of(model)
    if isinstance(model, PeftModel):
        base = name_of(model.get_base_model())
        peft: Any = own.to(torch.float32)
        own = without_peft_marks(peft.merge_and_unload())
    own = own.to(dtype)
    own = own.to(device) if device is not None else own
    own.requires_grad_(True)
    return Loaded(own.eval(), tokenizer, base, fingerprint_state(own), None, base)


def check(model: Any, *, adapter: bool = False) -> None:
    """Raise InputError for a ``model`` in memory that cannot be unlearned, or of which no ``adapter`` could be saved."""
    from peft import PeftModel

    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if not hasattr(plain, "generate") or not hasattr(plain, "config") or plain.get_output_embeddings() is None:
        raise InputError(
            f"model is a {type(model).__name__}; give a causal language model of transformers or PEFT, or a name"
        )
    if getattr(plain, "is_quantized", False) or getattr(plain.config, "quantization_config", None):
        raise InputError("the model in memory is quantised; unlearning needs it in full precision")
    if isinstance(model, PeftModel) and not hasattr(model.base_model, "merge_and_unload"):
        raise InputError("the PEFT model in memory cannot be merged into its base, which is what is unlearned")
    if adapter and (isinstance(model, PeftModel) or name_of(model) == IN_MEMORY):
        raise InputError(
            "an adapter is saved for a base that can be loaded again, and this model is in memory only; save it with "
            "save_pretrained and give the folder, or say merge=True"
        )


def check_base(own: Loaded, base: Loaded) -> None:
    """Raise InputError where ``own``, a model in memory, has other weights than ``base``, which its adapter is to be loaded
    on: number formats may differ, no more.
    """
    theirs = base.model.state_dict()
    for name, weight in own.model.state_dict().items():
        other = theirs.get(name)
        near = other is not None and other.shape == weight.shape
        if not near or (weight.to("cpu") - other.to("cpu")).abs().max() > ROUNDING * other.abs().max():
            raise InputError(
                f"an adapter is saved for the base {own.source}, and the model in memory has other weights ({name}); save "
                "it with save_pretrained and give the folder, or say merge=True"
            )
