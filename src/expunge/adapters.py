r"""LoRA arithmetic on state dicts: two adapters in a row are one adapter.

An adapter adds :math:`s\,B A` to a weight, with A (r, in), B (out, r) and the scaling s = alpha / r (alpha /
√r for rsLoRA).  A sum of two such updates is again one, of rank r₁ + r₂:

.. math:: s_1 B_1 A_1 + s_2 B_2 A_2 = \begin{bmatrix} s_1 B_1 & s_2 B_2 \end{bmatrix}
          \begin{bmatrix} A_1 \\ A_2 \end{bmatrix}

so an adapter that was trained on "base with the first adapter merged" can be saved as one on the plain base.
State dicts are in the form PEFT stores: ``base_model.model.<module>.lora_A.weight``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.errors import InputError

PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Settings under which a module's update is not s·B·A alone, or not an update of the plain base.
REFUSED = (
    "modules_to_save", "trainable_token_indices", "use_dora", "lora_bias", "layer_replication",
    "velora_config", "target_parameters", "alora_invocation_tokens", "use_qalora", "use_bdlora",
    "kasa_config", "monteclora_config",
)  # fmt: skip
PLAIN_INIT = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as plain values: ``state`` in PEFT's names, ``config`` as in ``adapter_config.json``."""

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]


def concatenate(first: Adapter, second: Adapter) -> Adapter:
    """One adapter that changes the base as ``first`` and ``second`` together do; exact, in fp32.

    Every module gets rank r₁ + r₂ (their largest ranks); a module that only one of them adapts, or adapts
    with a smaller rank, is filled up with zeros.  The scaling is folded into B, so the result has alpha =
    rank.  All other settings are those of ``first``.

    Raises InputError for what is not a plain sum of products (DoRA, biases, whole saved modules, embeddings,
    initialisations that change the base such as PiSSA), and for factors that do not fit.
    """
    parts = [_factors(adapter) for adapter in (first, second)]
    ranks = [max((a.shape[0] for a, _ in part.values()), default=0) for part in parts]
    rank, modules = sum(ranks), sorted({*parts[0], *parts[1]})
    state = {}
    for module in modules:
        pairs = [part[module] for part in parts if module in part]
        if len({(a.shape[1:], b.shape[0], b.shape[2:]) for a, b in pairs}) > 1:
            raise InputError(f"The adapters do not belong to one base: their factors of {module} do not fit.")
        a = pairs[0][0].new_zeros(rank, *pairs[0][0].shape[1:])  # (r₁ + r₂, in)
        b = pairs[0][1].new_zeros(pairs[0][1].shape[0], rank, *pairs[0][1].shape[2:])  # (out, r₁ + r₂)
        for part, start in zip(parts, (0, ranks[0]), strict=True):
            if module in part:
                end = start + part[module][0].shape[0]
                a[start:end], b[:, start:end] = part[module]
        state[f"{PREFIX}{module}.lora_A.weight"] = a
        state[f"{PREFIX}{module}.lora_B.weight"] = b
    config = dict(first.config) | {
        "r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
        "target_modules": modules, "exclude_modules": None, "layers_to_transform": None,
        "layers_pattern": None, "init_lora_weights": True, "lora_dropout": 0.0,
    }  # fmt: skip
    return Adapter(state, config)


def scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor s of one module's update: alpha / r, or alpha / √r for rsLoRA; patterns match as in PEFT."""
    patterns = config.get("alpha_pattern") or {}
    key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = config["lora_alpha"] if key is None else patterns[key]
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _factors(adapter: Adapter) -> dict[str, tuple[Tensor, Tensor]]:
    """module -> (A, s·B), in fp32 on the CPU."""
    _refuse(adapter.config)
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in adapter.state.items():
        match = FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            raise InputError(f"The adapter holds {name}, which is no factor of a linear layer; merge it instead.")
        found.setdefault(match["module"], {})[match["side"]] = value.detach().to("cpu", torch.float32)
    factors = {}
    for module, pair in found.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise InputError(f"The adapter is damaged: the factors A and B of {module} do not belong together.")
        factors[module] = (pair["A"], scaling(adapter.config, module, pair["A"].shape[0]) * pair["B"])
    return factors


def _refuse(config: Mapping[str, Any]) -> None:
    """Raise InputError for an adapter whose update is not a plain sum of products."""
    if config.get("peft_type", "LORA") != "LORA":
        raise InputError(f"Only LoRA adapters can be combined, not {config['peft_type']}; merge it instead.")
    bad = [name for name in REFUSED if config.get(name)]
    bad += ["bias"] if config.get("bias", "none") != "none" else []
    bad += ["init_lora_weights"] if config.get("init_lora_weights", True) not in PLAIN_INIT else []
    if bad:
        raise InputError(f"An adapter with {', '.join(bad)} set cannot be combined with another; merge it instead.")


def read_adapter(folder: Path) -> Adapter:
    """The adapter in ``folder`` as plain values."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return Adapter(load_file(folder / "adapter_model.safetensors"), config)
