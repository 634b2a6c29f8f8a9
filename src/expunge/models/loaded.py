"""A model in memory, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InputError


@dataclass(frozen=True)
class Loaded:
    """A model in memory, and where it came from.

    ``source``: the name as the user wrote it; ``fingerprint``: see :func:`fingerprint_state`; ``adapter``:
    the folder of the adapter that was merged into the model, if any; ``base``: the Hub name or folder of the
    model without that adapter, which an adapter saved later names as its base; ``quantized``: how the weights are
    quantised (:func:`expunge.models.quantize.described`), None where they are not.
    """

    model: Any
    tokenizer: Any
    source: str
    fingerprint: str
    adapter: str | None
    base: str
    quantized: Mapping[str, Any] | None = None


SAMPLING_ONLY = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAM_SEARCH_ONLY = ("early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty", "constraints")


def check_generation(model: Any) -> None:
    """Unset what ``model``'s generation settings say to no effect (a temperature without sampling), for transformers refuses
    to save such a model.  Raises InputError where it would refuse all the same.
    """
    from transformers import GenerationConfig

    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    defaults = GenerationConfig()
    unused = (SAMPLING_ONLY if not generation.do_sample else ()) + (
        BEAM_SEARCH_ONLY if generation.num_beams in (None, 1) else ()
    )
    for name in unused:
        if hasattr(generation, name):
            setattr(generation, name, getattr(defaults, name, None))
    try:
        generation.validate(strict=True)
    except ValueError as error:
        lines = [line.strip("- ") for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"transformers could not save this model again: mend its generation_config.json, {' '.join(lines[:2])}"
        ) from None


def fingerprint_state(model: nn.Module) -> str:
    r"""``sha256:`` and the hex digest of the state dict; equal weights give equal fingerprints anywhere.

    The definition is fixed: for each name in sorted order the UTF-8 bytes of ``name\0dtype\0d1,d2,…\0``
    (dtype as in ``float32``), then the tensor's bytes in row-major, little-endian order.  Tied weights count
    under each name.
    """
    return fingerprint_tensors(sorted(model.state_dict().items()))


def fingerprint_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """:func:`fingerprint_state` of tensors that come one by one, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in named:
        shape = ",".join(map(str, value.shape))
        digest.update(f"{name}\0{str(value.dtype).removeprefix('torch.')}\0{shape}\0".encode())
        whole: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(whole)
    return f"sha256:{digest.hexdigest()}"
