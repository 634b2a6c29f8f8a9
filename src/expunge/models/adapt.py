"""What of a model trains: LoRA factors put on it, taken off it or added to it, or weights chosen by name."""

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
    """``model`` with LoRA factors (fp32) that train, all else frozen; starts as the same function (B = 0).

    ``target_modules``: "all-linear" (not the output embedding, :func:`fused_projections` and :func:`routers`), a regular
    expression on full module names, or a list of name endings.  ``target_parameters``: names of weights of no layer of their
    own, such as all experts' in one tensor.  The factors depend on ``seed`` only; the global random state is left as
    it was.
    """
    from peft import LoraConfig, get_peft_model

    check_targets(model, target_modules)
    whole = {name for name, _ in model.named_modules()}
    named = not isinstance(target_modules, str) and whole.issuperset(target_modules)
    wanted = {*target_modules, *(name.rpartition(".")[0] for name in target_parameters)} if named else set()
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
            what = f"LoRA (r={r}, target_modules={target_modules!r})"
            raise InputError(f"{what} cannot be attached: {reason}.") from error
    if wanted:
        _check_placed(net, wanted)
    return net


def _check_placed(net: Any, wanted: set[str]) -> None:
    """Raise InputError where PEFT put factors on other modules than ``wanted``, as it does in families with experts."""
    names = {name.replace(".base_layer", "") for name, module in net.named_modules() if hasattr(module, "lora_A")}
    placed = {name.removeprefix("base_model.model.") for name in names}
    if placed != wanted:
        raise InputError(
            f"PEFT cannot put LoRA on {', '.join(sorted(wanted - placed)[:3]) or 'these weights alone'} of a "
            f"{net.config.model_type} model: it takes the experts of all layers in their place; train without --adapter "
            "lora, or choose other weights"
        )


def check_targets(model: nn.Module, targets: str | Sequence[str]) -> None:
    """Raise InputError for the first of LoRA's ``target_modules`` that is no layer of ``model``: PEFT passes over it."""
    names = [name for name, _ in model.named_modules() if name]
    ends = [f".{name}" for name in names]
    if isinstance(targets, str):
        missing = [] if targets == "all-linear" or any(re.fullmatch(targets, n) for n in names) else [targets]
    else:
        missing = [t for t in targets if not any(end.endswith(f".{t}") for end in ends)]
    if missing:
        linear = dict.fromkeys(n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear))
        raise InputError(
            f"LoRA cannot be attached to {missing[0]!r} (target_modules): the model has no such layer"
            f"{nearest(missing[0], linear)}; its linear layers are {', '.join(linear)}"
        )


def fused_projections(model: nn.Module) -> list[str]:
    """The linear layers of Mamba blocks whose weight a kernel may read past the layer, and so past its LoRA factors."""
    blocks = [name for name, module in model.named_modules() if hasattr(module, "A_log") and hasattr(module, "D")]
    inside = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return [name for block in blocks for end in ("out_proj", "dt_proj") if (name := f"{block}.{end}") in inside]


def routers(model: nn.Module) -> list[str]:
    """The linear layers that give more than one tensor, as a router of Llama 4 does, so that nothing can be added to it."""
    linear = [(name, type(module)) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name, kind in linear if "router" in kind.__name__.lower()]


def train_only(model: nn.Module, pattern: str) -> None:
    """Freeze every weight of ``model`` but those whose name ``pattern``, a regular expression, is found in.

    Raises InputError where that is none, or ``pattern`` is not a regular expression.
    """
    chosen = set(_matching((name for name, _ in model.named_parameters()), pattern))
    for name, p in model.named_parameters():
        p.requires_grad_(name in chosen)


def without_experts(model: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """LoRA's ``settings`` with "all-linear" written out where ``model`` has experts in one tensor, whose update is no sum of
    products that could be added to a weight.
    """
    from transformers.pytorch_utils import Conv1D

    experts = any(p.ndim == 3 and not name.endswith(".weight") for name, p in model.named_parameters())
    if not experts or settings["target_modules"] != "all-linear":
        return dict(settings)
    out = {*fused_projections(model), *routers(model)} | {
        n for n, m in model.named_modules() if m is model.get_output_embeddings()
    }
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return {**settings, "target_modules": [name for name in names if name not in out]}


def lora_targets(model: nn.Module, pattern: str) -> dict[str, list[str]]:
    """What LoRA adapts in place of the weights of ``model`` whose name ``pattern`` is found in: linear layers, and experts'
    weights that stand together in one tensor; by the arguments of :func:`attach_lora`.

    Raises InputError as :func:`train_only`.
    """
    from transformers.pytorch_utils import Conv1D

    linear = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    experts = [name for name, p in model.named_parameters() if p.ndim == 3 and not name.endswith(".weight")]
    found = set(_matching([*linear, *experts], pattern))
    return {
        "target_modules": [name.removesuffix(".weight") for name in linear if name in found],
        "target_parameters": [name for name in experts if name in found],
    }


def linear_layers(model: nn.Module, pattern: str) -> list[str]:
    """The linear layers among :func:`lora_targets`."""
    return lora_targets(model, pattern)["target_modules"]


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
    return without_peft_marks(model.unload()), Adapter(kept, config)


def adapted(model: Any, adapter: Adapter) -> dict[str, Tensor]:
    """module -> the weight that ``adapter`` changes, (out, in), as a view into plain ``model``.

    Raises InputError where that is no matrix of a linear layer, or one that ``model`` uses twice.
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

    Weights of another number format would lose small updates to rounding: they stay, and the layer adds :math:`s\,B A x` to
    what it gives.  Raises InputError as :func:`adapted`.
    """
    weights = adapted(model, adapter)
    for name, (a, b) in factors(adapter).items():
        a, b = (factor.to(weights[name].device) for factor in (a, b))
        if weights[name].dtype == torch.float32:
            weights[name].add_(b @ a)
        else:
            model.get_submodule(name).register_forward_hook(partial(_with_update, a, b))


def _with_update(a: Tensor, b: Tensor, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A linear layer's output with s·B·A·x added, in the factors' fp32 as PEFT does it."""
    return (output + inputs[0].to(a.dtype) @ a.T @ b.T).to(output.dtype)


def trainable(model: nn.Module) -> tuple[int, int]:
    """(parameters that train, all parameters); a tied weight counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, moves in sizes if moves), sum(n for n, _ in sizes)


def shared_embedding(model: Any, adapter: Adapter) -> str | None:
    """The embedding that ``adapter`` changes although input and output of ``model`` share it, if any."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    return next((name for name in names if any(f".{name}.lora_" in key for key in adapter.state)), None)


def merged(model: PeftModel) -> Any:
    """The plain model with the adapter of ``model`` in its weights, all of which can train; ``model`` is used up.

    A weight that input and output share becomes two where the adapter changes one of the ends, so that the model says what
    it said with the adapter on.
    """
    inner = model.get_base_model()
    ends = _ends(inner)
    tied = ends[1] is not None and _inner(ends[0]).weight is _inner(ends[1]).weight
    if tied and any(map(_is_wrapped, ends)):
        _inner(ends[1]).weight = nn.Parameter(_inner(ends[1]).weight.detach().clone())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")
        plain = without_peft_marks(model.merge_and_unload())
    if tied:
        first, last = _ends(plain)
        same = torch.equal(
            first.weight, last.weight
        )  # nothing happened to them, or the same to both, as to trained tokens
        if same:
            last.weight = first.weight
        plain.config.get_text_config().tie_word_embeddings = plain.config.tie_word_embeddings = same
    plain.requires_grad_(True)
    return plain


def _ends(model: Any) -> list[Any]:
    """The input and the output embedding."""
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def _is_wrapped(end: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(end, BaseTunerLayer | AuxiliaryTrainingWrapper)


def _inner(end: Any) -> Any:
    """The module that PEFT has wrapped."""
    while True:
        inner = getattr(end, "base_layer", None) or getattr(end, "original_module", None)
        if inner is None:
            return end
        end = inner


def without_peft_marks(plain: Any) -> Any:
    """``plain`` without PEFT's marks, for which it would take the next adapter for a second one."""
    vars(plain).pop("peft_config", None)
    plain._hf_peft_config_loaded = False
    return plain
