"""Which weights of a model train: LoRA factors (attached, detached, merged), or weights chosen by name."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from expunge.errors import InputError, nearest
from expunge.models.lora import Adapter, factors
from expunge.models.quantize import elements

if TYPE_CHECKING:
    from peft import PeftModel


def attach_lora(
    model: Any,
    *,
    r: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    target_parameters: Sequence[str] = (),
    seed: int = 0,
) -> PeftModel:
    """``model`` with trainable LoRA factors (fp32), everything else frozen; its outputs do not change at first (B = 0).

    ``target_modules``: "all-linear" (not the output embedding, :func:`fused_projections` and :func:`routers`), a regular
    expression on full module names, or a list of name endings.  ``target_parameters``: names of weights that are not layers,
    such as one tensor with all experts' weights.  The factors depend on ``seed`` only; the global random state is left as
    it was.
    """
    from peft import LoraConfig, get_peft_model

    check_targets(model, target_modules)
    module_names = {name for name, _ in model.named_modules()}
    lists_full_names = not isinstance(target_modules, str) and module_names.issuperset(target_modules)
    targeted = (
        {*target_modules, *(name.rpartition(".")[0] for name in target_parameters)} if lists_full_names else set()
    )
    fused = [*fused_projections(model), *routers(model)] if target_modules == "all-linear" else []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(tie_word_embeddings|fan_in_fan_out)")  # :func:`merged` unties
        torch.manual_seed(seed)
        try:
            config = LoraConfig(
                r=r,
                lora_alpha=alpha,  # type: ignore[arg-type]
                lora_dropout=dropout,
                target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
                exclude_modules=fused or None,
                target_parameters=list(target_parameters) or None,
                task_type="CAUSAL_LM",
            )
            net = get_peft_model(model, config, autocast_adapter_dtype=True)
        except ValueError as error:
            reason = str(error).split("\n")[0].rstrip(".")
            attempt = f"LoRA (r={r}, target_modules={target_modules!r})"
            raise InputError(f"{attempt} cannot be attached: {reason}.") from error
    if targeted:
        _check_placed(net, targeted)
    return net


def _check_placed(net: Any, targeted: set[str]) -> None:
    """Raise InputError where PEFT put factors on other modules than ``targeted``, as it does in some mixtures of experts."""
    names = {name.replace(".base_layer", "") for name, module in net.named_modules() if hasattr(module, "lora_A")}
    placed = {name.removeprefix("base_model.model.") for name in names}
    if placed != targeted:
        raise InputError(
            f"PEFT cannot put LoRA on {', '.join(sorted(targeted - placed)[:3]) or 'these weights alone'} of a "
            f"{net.config.model_type} model: it takes the experts of all layers in their place; train without --adapter "
            "lora, or choose other weights"
        )


def check_targets(model: nn.Module, targets: str | Sequence[str]) -> None:
    """Raise InputError for the first of LoRA's ``target_modules`` that is no layer of ``model``, which PEFT ignores."""
    names = [name for name, _ in model.named_modules() if name]
    suffixes = [f".{name}" for name in names]
    if isinstance(targets, str):
        missing = [] if targets == "all-linear" or any(re.fullmatch(targets, n) for n in names) else [targets]
    else:
        missing = [t for t in targets if not any(end.endswith(f".{t}") for end in suffixes)]
    if missing:
        linear = dict.fromkeys(n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear))
        raise InputError(
            f"LoRA cannot be attached to {missing[0]!r} (target_modules): the model has no such layer"
            f"{nearest(missing[0], linear)}; its linear layers are {', '.join(linear)}"
        )


def fused_projections(model: nn.Module) -> list[str]:
    """The linear layers of Mamba blocks whose weight a kernel may read past the layer, and so past its LoRA factors."""
    blocks = [name for name, module in model.named_modules() if hasattr(module, "A_log") and hasattr(module, "D")]
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return [name for block in blocks for end in ("out_proj", "dt_proj") if (name := f"{block}.{end}") in linear]


def routers(model: nn.Module) -> list[str]:
    """The linear layers that return several tensors, as a router of Llama 4 does, to which no update can be added."""
    linear = [(name, type(module)) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name, module_class in linear if "router" in module_class.__name__.lower()]


def train_only(model: nn.Module, pattern: str) -> None:
    """Freeze every weight of ``model`` except those whose name matches the regular expression ``pattern`` (``re.search``).

    Raises InputError if no name matches, or ``pattern`` is not a regular expression.
    """
    trainable_names = set(_matching((name for name, _ in model.named_parameters()), pattern))
    for name, p in model.named_parameters():
        p.requires_grad_(name in trainable_names)


def without_experts(model: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """LoRA's ``settings`` with "all-linear" written out where ``model`` has experts in one tensor, whose LoRA update
    cannot be added to the weight as a product of factors.
    """
    from transformers.pytorch_utils import Conv1D

    experts = any(p.ndim == 3 and not name.endswith(".weight") for name, p in model.named_parameters())
    if not experts or settings["target_modules"] != "all-linear":
        return dict(settings)
    excluded = {*fused_projections(model), *routers(model)} | {
        n for n, m in model.named_modules() if m is model.get_output_embeddings()
    }
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return {**settings, "target_modules": [name for name in names if name not in excluded]}


def lora_targets(model: nn.Module, pattern: str) -> dict[str, list[str]]:
    """LoRA's targets for the weights of ``model`` whose name matches ``pattern``: linear layers, and tensors with all
    experts' weights; by the arguments of :func:`attach_lora`.

    Raises InputError as :func:`train_only`.
    """
    from transformers.pytorch_utils import Conv1D

    linear = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    experts = [name for name, p in model.named_parameters() if p.ndim == 3 and not name.endswith(".weight")]
    matching = set(_matching([*linear, *experts], pattern))
    return {
        "target_modules": [name.removesuffix(".weight") for name in linear if name in matching],
        "target_parameters": [name for name in experts if name in matching],
    }


def linear_layers(model: nn.Module, pattern: str) -> list[str]:
    """The linear layers among :func:`lora_targets`."""
    return lora_targets(model, pattern)["target_modules"]


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    """The ``names`` that match ``pattern``; InputError if there are none."""
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise InputError(f"trainable={pattern!r} is not a regular expression: {error}") from None
    all_names = list(names)
    if not (matching := [name for name in all_names if search(name)]):
        raise InputError(
            f"trainable={pattern!r} matches no weight that could train; weights have names such as {all_names[0]} "
            f"and {all_names[-1]}"
        )
    return matching


def detach_lora(model: PeftModel) -> tuple[Any, Adapter]:
    """The plain model under ``model``, its weights as they were before :func:`attach_lora`, and the factors (a copy
    on the CPU).  ``model`` cannot be used afterwards.
    """
    from peft import get_peft_model_state_dict

    name = model.active_adapter
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    config = json.loads(json.dumps(model.peft_config[name].to_dict(), default=sorted)) | {"inference_mode": True}
    factors_on_cpu = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}
    return without_peft_marks(model.unload()), Adapter(factors_on_cpu, config)


def adapted(model: Any, adapter: Adapter) -> dict[str, Tensor]:
    """module -> the weight that ``adapter`` changes, (out, in), as a view into plain ``model``.

    Raises InputError for a weight that is no matrix of a linear layer, or that ``model`` uses twice.
    """
    from transformers.pytorch_utils import Conv1D

    if model.config.get_text_config().tie_word_embeddings and (shared := shared_embedding(model, adapter)):
        raise InputError(f"LoRA on {shared}, a weight that the model uses twice, cannot be added to it; leave it out.")
    views = {}
    for name in factors(adapter):
        module = model.get_submodule(name)
        weight = getattr(module, "weight", None)
        if not isinstance(module, nn.Linear | Conv1D) or weight is None or not weight.is_floating_point():
            raise InputError(f"LoRA on {name} cannot be added to the model: it is no linear layer.")
        views[name] = weight.detach().T if isinstance(module, Conv1D) else weight.detach()
    return views


@torch.no_grad()
def add(model: Any, adapter: Adapter) -> None:
    r"""Add the update of ``adapter`` to the weights of plain ``model`` in place, in fp32: :math:`W \leftarrow W + s\,B A`.

    Weights of another dtype would lose small updates to rounding: they are unchanged, and a forward hook adds
    :math:`s\,B A x` to the layer's output.  Raises InputError as :func:`adapted`.
    """
    weights = adapted(model, adapter)
    for name, (a, b) in factors(adapter).items():
        a, b = (factor.to(weights[name].device) for factor in (a, b))
        if weights[name].dtype == torch.float32:
            weights[name].add_(b @ a)
        else:
            model.get_submodule(name).register_forward_hook(partial(_with_update, a, b))


def add_beside(model: Any, adapter: Adapter) -> None:
    r"""Add :math:`s\,B A x` to the outputs of the linear layers of plain ``model`` that ``adapter`` changes.

    The weights stay as they are, so they may be quantised.  Raises InputError for an update of anything else.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    updates = factors(adapter)
    for name, (a, b) in updates.items():
        if name not in linear or linear[name] is model.get_output_embeddings():
            raise InputError(f"{name} is no linear layer inside the model")
        device = linear[name].weight.device
        linear[name].register_forward_hook(partial(_with_update, a.to(device), b.to(device)))


def _with_update(a: Tensor, b: Tensor, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A linear layer's output with s·B·A·x added, in the factors' fp32 as PEFT does it."""
    return (output + inputs[0].to(a.dtype) @ a.T @ b.T).to(output.dtype)


def trainable(model: nn.Module) -> tuple[int, int]:
    """(parameters that train, all parameters); a tied weight counts once."""
    sizes = [(elements(p), p.requires_grad) for p in model.parameters()]
    return sum(n for n, requires_grad in sizes if requires_grad), sum(n for n, _ in sizes)


def shared_embedding(model: Any, adapter: Adapter) -> str | None:
    """The embedding that ``adapter`` changes although input and output of ``model`` share it, if any."""
    embeddings = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [name for name, module in model.named_modules() if any(module is end for end in embeddings)]
    return next((name for name in names if any(f".{name}.lora_" in key for key in adapter.state)), None)


def merged(model: PeftModel) -> Any:
    """The plain model with the adapter of ``model`` in its weights, all trainable; ``model`` cannot be used afterwards.

    A weight that input and output embeddings share becomes two if the adapter changes one of them, so that the outputs are
    those of the model with the adapter.
    """
    inner = model.get_base_model()
    embeddings = _embeddings(inner)
    tied = embeddings[1] is not None and _inner(embeddings[0]).weight is _inner(embeddings[1]).weight
    if tied and any(map(_is_wrapped, embeddings)):
        _inner(embeddings[1]).weight = nn.Parameter(_inner(embeddings[1]).weight.detach().clone())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")
        plain = without_peft_marks(model.merge_and_unload())
    if tied:
        input_embedding, output_embedding = _embeddings(plain)
        # Equal if both are unchanged, or changed alike, as trained tokens are.
        still_tied = torch.equal(input_embedding.weight, output_embedding.weight)
        if still_tied:
            output_embedding.weight = input_embedding.weight
        plain.config.get_text_config().tie_word_embeddings = plain.config.tie_word_embeddings = still_tied
    plain.requires_grad_(True)
    return plain


def _embeddings(model: Any) -> list[Any]:
    """The input and the output embedding."""
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def _is_wrapped(module: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)


def _inner(module: Any) -> Any:
    """The module that PEFT has wrapped."""
    while True:
        inner = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
        if inner is None:
            return module
        module = inner


def without_peft_marks(plain: Any) -> Any:
    """``plain`` without PEFT's marks, which would make PEFT treat the next adapter as a second one."""
    vars(plain).pop("peft_config", None)
    plain._hf_peft_config_loaded = False
    return plain
