r"""LoRA arithmetic on state dicts: two adapters in a row are one adapter.

An adapter adds :math:`s\,B A` to a weight, with A (r, in), B (out, r) and the scaling s = alpha / r (alpha /
√r for rsLoRA).  A sum of two such updates is again one, of rank r₁ + r₂:

.. math:: s_1 B_1 A_1 + s_2 B_2 A_2 = \begin{bmatrix} s_1 B_1 & s_2 B_2 \end{bmatrix}
          \begin{bmatrix} A_1 \\ A_2 \end{bmatrix}

so an adapter that was trained on "base with the first adapter merged" can be saved as one on the plain base, and a
task vector is negated by the sign of one factor (of both, it would be itself again).
State dicts are in the form PEFT stores: ``base_model.model.<module>.lora_A.weight``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InputError
from expunge.files import read_json
from expunge.forward.family import local, reshard

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
    parts = [factors(adapter) for adapter in (first, second)]
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
    return Adapter(state, _plain_sum(first.config, rank, modules))


def scaled(adapter: Adapter, factor: float) -> Adapter:
    r"""The adapter whose update is ``factor`` times as large; ``-1`` negates it.

    .. math:: c \cdot s\,B A = s\,(c B) A

    Only B is multiplied: on both factors c would count twice, and a minus sign not at all.
    """
    _refuse(adapter.config)
    state = {name: factor * value if ".lora_B." in name else value for name, value in adapter.state.items()}
    return Adapter(state, adapter.config)


def start_of(model: nn.Module) -> dict[str, Tensor]:
    """What :func:`negate` needs of ``model`` before it trains: a copy, on the CPU, of the trained weights but LoRA's.

    Of a sharded model, both are of this process's shards.
    """
    reshard(model)
    moving = ((n, p) for n, p in model.named_parameters() if p.requires_grad and not _is_factor(n))
    return {name: local(p).to("cpu", copy=True) for name, p in moving}


@torch.no_grad()
def negate(model: nn.Module, start: Mapping[str, Tensor], factor: float) -> None:
    r"""Negate in place what training did to ``model``: the task vector times ``-factor``.

    .. math:: \theta \leftarrow \theta_0 - c\,(\theta - \theta_0), \qquad s\,B A \leftarrow s\,(-c B) A

    LoRA's part is its whole update, so it is counted from the model without the adapter, where B was 0 at the start.

    Hand-worked: from 1 to 3 with c = ½ gives 1 - ½ · 2 = 0.

    Ilharco et al. 2023, arXiv:2212.04089.
    """
    reshard(model)
    for name, p in model.named_parameters():
        part = local(p)
        if name in start:
            before = start[name].to(part.device)
            part.copy_(before - factor * (part - before))
        elif p.requires_grad and _is_factor(name, "B"):
            part.mul_(-factor)


def _is_factor(name: str, side: str = "[AB]") -> bool:
    """Whether a parameter is a LoRA factor, of a matrix or of an embedding."""
    return re.search(rf"\.lora_(embedding_)?{side}\.", name) is not None


@dataclass(frozen=True)
class Truncated:
    r"""What a lower rank cost: :math:`\|\Delta W - \Delta W_k\|_F / \|\Delta W\|_F` of each module, and over all of them."""

    modules: Mapping[str, float]
    overall: float


def compress(adapter: Adapter, rank: int) -> tuple[Adapter, Truncated]:
    r"""The nearest adapter of a lower ``rank`` (Eckart–Young), and what is lost.

    .. math:: s\,B A = Q_B (R_B R_A^\top) Q_A^\top, \qquad R_B R_A^\top = U \Sigma V^\top

    with the QR decompositions of sB (out, r) and Aᵀ (in, r): only the r×r core is decomposed, never the (out, in) matrix.
    B' = Q_B U √Σ and A' = √Σ Vᵀ Q_Aᵀ, cut to ``rank`` and with alpha = rank; the error is the norm of the singular
    values that are left out.  Computed in fp64, given in fp32.  An adapter of no higher rank is given back as it is.

    Hand-worked: the update diag(3, 4) at rank 1 is diag(0, 4), with the relative error 3/5.
    """
    parts = factors(adapter)
    if rank_of(adapter) <= rank:
        return adapter, Truncated(dict.fromkeys(parts, 0.0), 0.0)
    state: dict[str, Tensor] = {}
    lost, whole = {}, {}
    for module, (a, b) in sorted(parts.items()):
        q_b, r_b = torch.linalg.qr(b.double())  # (out, k), (k, r)
        q_a, r_a = torch.linalg.qr(a.double().T)  # (in, k), (k, r)
        u, sizes, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        kept = min(rank, len(sizes))
        root = sizes[:kept].sqrt()
        new_a, new_b = a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)
        new_a[:kept] = root[:, None] * (v[:kept] @ q_a.T)
        new_b[:, :kept] = (q_b @ u[:, :kept]) * root
        state |= {f"{PREFIX}{module}.lora_A.weight": new_a, f"{PREFIX}{module}.lora_B.weight": new_b}
        lost[module], whole[module] = (float(part.square().sum()) for part in (sizes[kept:], sizes))
    relative = {m: math.sqrt(lost[m] / whole[m]) if whole[m] else 0.0 for m in lost}
    total = sum(whole.values())
    overall = math.sqrt(sum(lost.values()) / total) if total else 0.0
    return Adapter(state, _plain_sum(adapter.config, rank, list(relative))), Truncated(relative, overall)


def rank_of(adapter: Adapter) -> int:
    """The largest rank of its modules."""
    return max((value.shape[0] for name, value in adapter.state.items() if ".lora_A." in name), default=0)


def orthogonality(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    r"""O-LoRA's penalty: how much of the one module's input directions the other one reads.

    .. math:: \sum_{\text{layers}} \sum_{jk} \bigl| (A_r A_f^\top)_{jk} \bigr|

    ``pairs``: of each layer the frozen A_r (r₁, in) and the A_f (r₂, in) that trains.  A sum over layers and over all
    r₁·r₂ products, as in the public code (the paper writes squares), so it grows with both; 0 where there is no pair.
    In fp32 whatever autocast says.

    Hand-worked: A_r = [1, 2], A_f = [[3, 0], [0, -1]] give |3| + |-2| = 5.

    Wang et al. 2023, arXiv:2310.14152.
    """
    terms = []
    for frozen, trained in pairs:
        with torch.autocast(trained.device.type, enabled=False):
            terms.append((frozen.float() @ trained.float().T).abs().sum())
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _plain_sum(config: Mapping[str, Any], rank: int, modules: list[str]) -> dict[str, Any]:
    """``config`` for factors of one ``rank`` on exactly these ``modules``, with the scaling folded into B."""
    return dict(config) | {
        "r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
        "target_modules": modules, "exclude_modules": None, "layers_to_transform": None,
        "layers_pattern": None, "init_lora_weights": True, "lora_dropout": 0.0,
    }  # fmt: skip


def scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor s of one module's update: alpha / r, or alpha / √r for rsLoRA; patterns match as in PEFT."""
    patterns = config.get("alpha_pattern") or {}
    key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = config["lora_alpha"] if key is None else patterns[key]
    result: float = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return result


def factors(adapter: Adapter) -> dict[str, tuple[Tensor, Tensor]]:
    """module -> (A, s·B), in fp32 on the CPU; raises InputError for what is not a plain sum of products."""
    _refuse(adapter.config)
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in adapter.state.items():
        match = FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            raise InputError(f"The adapter holds {name}, which is no factor of a linear layer; merge it instead.")
        found.setdefault(match["module"], {})[match["side"]] = value.detach().to("cpu", torch.float32)
    out = {}
    for module, pair in found.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise InputError(f"The adapter is damaged: the factors A and B of {module} do not belong together.")
        out[module] = (pair["A"], scaling(adapter.config, module, pair["A"].shape[0]) * pair["B"])
    return out


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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(
        folder / "adapter_config.json", description="adapter's settings", remedy="restore or download it again"
    )
    file = folder / "adapter_model.safetensors"
    try:
        return Adapter(load_file(file), config)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged or cut off ({error}); restore or download it again") from error
