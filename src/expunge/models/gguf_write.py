"""Models to GGUF files, as llama.cpp quantises them, with the tokenizer where it can be written; to be loaded again."""

from __future__ import annotations

import copy
from contextlib import redirect_stderr
from importlib import util
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from expunge.errors import InputError
from expunge.models import gguf_tokenizer

KINDS = ("Q8_0", "Q4_0", "F32")  # 8.5, 4.5 and 32 bits a weight; the first two in blocks of 32
ARCHITECTURES = ("llama", "qwen2", "qwen3")  # of which transformers reads all weights as they were
ROTATED = ("llama",)  # whose query and key rows GGUF stores in another order


def check(model: Any) -> None:
    """Raise InputError where ``model`` cannot be written: the package is missing, or its architecture is not known here."""
    if util.find_spec("gguf") is None:
        raise InputError("a GGUF file needs the package gguf: pip install 'expunge[gguf]'")
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        raise InputError(f"a {kind} model cannot be written as GGUF here; {', '.join(ARCHITECTURES)} models can")


def write(model: Any, file: Path, kind: str, tokenizer: Any = None) -> str | None:
    """Write ``model`` to ``file``: matrices as ``kind``, vectors in fp32, and ``tokenizer``; returns why not the last.

    Embeddings, in and out, are Q8_0 in a Q4_0 file, near llama.cpp's own choice (Q6_K).  A matrix whose rows are no
    multiple of 32 long stays in fp32.  Raises InputError as :func:`check`, and for a weight that GGUF has no name for.
    """
    check(model)
    import gguf

    if kind not in KINDS:
        raise InputError(f"a GGUF file is {', '.join(KINDS)}, not {kind!r}")
    config = model.config.get_text_config()
    name = model.config.model_type
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == name)
    known = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(file, name)
    writer.add_name("model")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    why = gguf_tokenizer.problem(tokenizer) if tokenizer is not None else "none was given"
    if why is None:
        gguf_tokenizer.add(writer, tokenizer, model.get_input_embeddings().num_embeddings)
    ends = {id(p) for end in (model.get_input_embeddings(), model.get_output_embeddings()) for p in end.parameters()}
    for parameter, p in model.named_parameters():
        stored = known.get_name(parameter, try_suffixes=(".weight", ".bias"))
        if stored is None:
            raise InputError(f"GGUF has no name for the weight {parameter} of a {model.config.model_type} model")
        values = rotated(_array(p), parameter, config) if name in ROTATED else _array(p)
        wanted = "Q8_0" if kind == "Q4_0" and id(p) in ends else kind
        held = gguf.GGMLQuantizationType[wanted if p.ndim == 2 and p.shape[1] % 32 == 0 else "F32"]
        writer.add_tensor(stored, gguf.quantize(values, held), raw_dtype=held)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return why


def read_again(file: Path, model: Any) -> nn.Module:
    """A new model with the weights in ``file``, in fp32, that is otherwise like ``model``, from which it was written."""
    import torch
    from transformers import AutoModelForCausalLM

    with redirect_stderr(StringIO()):  # a progress bar that has no switch
        found = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, config=copy.deepcopy(model.config), dtype=torch.float32
        )
    found.generation_config = copy.deepcopy(model.generation_config)
    result: nn.Module = found.to(next(model.parameters()).device).eval()
    return result


def rotated(values: NDArray[np.float32], parameter: str, config: Any) -> NDArray[np.float32]:
    """The rows of a query or key matrix in GGUF's order for rotary embeddings: of each head pairs (i, i + d/2) side by side.

    Other weights as they are.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    number = next((n for name, n in heads.items() if f".{name}." in parameter), None)
    if number is None:
        return values
    halves = values.reshape(number, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def _array(p: nn.Parameter) -> NDArray[np.float32]:
    return np.asarray(p.detach().float().cpu())
