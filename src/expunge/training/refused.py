"""Fields of ``transformers.TrainingArguments`` that would do nothing here, or harm: each is refused with what to do instead.

All other fields do what transformers says.  A field at a value that asks for nothing (``push_to_hub=false``) is welcome.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import json
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, get_args, get_origin, get_type_hints

from expunge import files
from expunge.errors import InputError, nearest, shortened
from expunge.training import optimizers

_EVALUATION = "figures are measured before and after training (eval_rows says on how many rows); leave it out"
_UPLOAD = (
    "the model is pushed by the run itself, once and whole: push_to_hub, hub_model_id, hub_private_repo, hub_token and "
    "hub_revision stand beside model and out, not under training; or `expunge push OUT --to user/name`"
)
_ORDER = "rows come in an order that --seed decides; leave it out"
_COLUMNS = "batches are made of the forget and the retain rows by expunge; leave it out"
_FORWARD = "the losses are computed inside the model's own forward pass, which it would replace; leave it out"
_ALWAYS = "expunge always trains, and measures before and after; leave it out"
_TRACKER = "it is a tracker's; give report_to with it, such as report_to=wandb"
_CHECKPOINTS = "no checkpoint is written; give save_strategy=steps or save_strategy=epoch with it, or leave it out"

REASONS: dict[str, str] = {
    **dict.fromkeys(
        (
            "eval_strategy", "eval_steps", "eval_delay", "per_device_eval_batch_size", "prediction_loss_only",
            "eval_on_start", "eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps",
            "include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval",
        ),
        _EVALUATION,
    ),
    **dict.fromkeys(
        ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        "nothing is measured during training, so there is no best checkpoint; with --holdout training stops in time",
    ),
    **dict.fromkeys(
        (
            "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push",
            "hub_revision",
        ),
        _UPLOAD,
    ),
    **dict.fromkeys(("data_seed", "train_sampling_strategy", "length_column_name"), _ORDER),
    **dict.fromkeys(("label_names", "include_num_input_tokens_seen"), _COLUMNS),
    **dict.fromkeys(
        ("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel", "liger_kernel_config"),
        _FORWARD,
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), _ALWAYS),
    "label_smoothing_factor": "the method has losses of its own, which do not smooth labels; leave it out",
    "average_tokens_across_devices": "a mean is always one over all processes; leave it out",
    "use_cache": "training reads no cache; leave it out",
    "torch_empty_cache_steps": "the trainer's own step does not heed it; lower per_device_train_batch_size instead",
    "auto_find_batch_size": "forget and retain rows are paired by the batch, which cannot change on the way; set "
    "per_device_train_batch_size and gradient_accumulation_steps",
    "logging_nan_inf_filter": "a run stops at the first loss that is not finite; leave it out",
    "skip_memory_metrics": "the record has the peak memory; leave it out",
    "parallelism_config": "a model is not cut over processes; use DDP, or one process",
    "local_rank": "the launcher sets it; leave it out",
}  # fmt: skip
TRACKERS = ("run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id")
OF_CHECKPOINTS = ("save_total_limit", "save_only_model", "save_on_each_node", "enable_jit_checkpoint")
BESIDE = {  # argument -> without what other it does nothing
    **dict.fromkeys(
        (
            "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
            "dataloader_in_order",
        ),
        "dataloader_num_workers",
    ),
    "gradient_checkpointing_kwargs": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "activation_checkpointing",
    "ignore_data_skip": "resume_from_checkpoint",
    "restore_callback_states_from_checkpoint": "resume_from_checkpoint",
    "fsdp_config": "fsdp",
}  # fmt: skip
OF_SEVERAL = (
    "ddp_backend", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph",
)  # fmt: skip
OF_OPTIMIZERS = ("optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")  # not every optimizer reads them
LOW_RANK_OPTIMIZERS = ("galore", "apollo", "lomo")  # those that read optim_target_modules
NO_SCHEDULES = ("reduce_lr_on_plateau", "greedy")  # they follow an evaluation during training

WORDS = {"adam": "adamw_torch", "adamw": "adamw_torch"}  # what people type -> what it is called
# What people type who know older versions, TRL or PEFT -> what it is called here.
HABITS = {
    "warmup_ratio": "warmup_steps below 1 is a share of all steps, such as warmup_steps=0.1",
    "group_by_length": _ORDER,
    "evaluation_strategy": _EVALUATION,
    "predict_with_generate": "answers are generated with --examples N, and by `expunge bench`; leave it out",
    "generation_max_length": "answers of --examples have max_new_tokens",
    "no_cuda": "it is use_cpu=true",
    "use_mps_device": "it is --device mps",
    "logging_dir": "trackers write into OUT/logs, or where their own environment variables say; leave it out",
    "overwrite_output_dir": "it is --overwrite",
    "save_safetensors": "weights are always saved as safetensors; leave it out",
    "include_inputs_for_metrics": _EVALUATION,
    "include_tokens_per_second": "the record has tokens and seconds; leave it out",
    "half_precision_backend": "give bf16=true or fp16=true, or leave it out",
    "fp16_opt_level": "give bf16=true or fp16=true, or leave it out",
    "per_gpu_train_batch_size": "it is per_device_train_batch_size",
    "train_batch_size": "it is per_device_train_batch_size",
    "max_seq_length": "it is max_length",
    "max_seq_len": "it is max_length",
    "packing": _COLUMNS,
    "dataset_text_field": "rows with a column `text` are read as texts",
    "load_in_4bit": "it is --quantize nf4, with --adapter lora",
    "load_in_8bit": "it is --quantize int8, with --adapter lora",
    **dict.fromkeys(
        ("quantization_config", "bnb_config", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "quantization"),
        "it is --quantize nf4 (with double quantisation) or int8, with --adapter lora",
    ),
    "bnb_4bit_compute_dtype": "it is --dtype, beside --quantize nf4",
    "torch_dtype": "it is --dtype",
    "attn_implementation": "it is attn, --attn",
    "use_flash_attention_2": "it is --attn flash_attention_2",
    "output_dir": "it is --out",
    "gpu": "it is --device cuda",
    "cuda": "it is --device cuda",
    "cpu": "it is use_cpu=true",
    "base_model": "it is --model",
    "model_name_or_path": "it is --model",
    "forget_set": "it is --forget",
    "retain_set": "it is --retain",
    "lora_r": "it is lora.r",
    "lora_alpha": "it is lora.alpha",
    "lora_dropout": "it is lora.dropout",
    "rank": "it is lora.r",
    "alpha": "it is lora.alpha, or a parameter of the method, -p alpha=…",
    "target_modules": "it is lora.target_modules",
    "peft_config": "it is adapter=lora with lora.r, lora.alpha, lora.dropout and lora.target_modules",
    "lora_config": "it is adapter=lora with lora.r, lora.alpha, lora.dropout and lora.target_modules",
    "args": "give the fields of TrainingArguments by name, such as learning_rate=1e-5",
    "training_args": "give the fields of TrainingArguments by name, such as learning_rate=1e-5",
    "train_dataset": "they are forget and retain",
    "eval_dataset": "figures are measured on forget and retain, before and after (eval_rows says on how many rows)",
    "max_rows": "it is limit",
    "steps": "it is max_steps",
    "num_epochs": "it is num_train_epochs",
    "grad_accum": "it is gradient_accumulation_steps",
}


def habit(key: str) -> str:
    """How a message goes on after the unknown setting ``key``: with what it is called here, if that is known.

    >>> habit("warmup_ratio")
    ': warmup_steps below 1 is a share of all steps, such as warmup_steps=0.1'
    >>> habit("xyz")
    ''
    """
    return f": {HABITS[key]}" if key in HABITS else ""


@functools.cache
def _usual() -> dict[str, Any]:
    from transformers import TrainingArguments

    fields = dataclasses.fields(TrainingArguments)
    return {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for f in fields
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
    }


def check_heeded(given: Mapping[str, Any]) -> None:
    """Raise InputError for an argument in ``given`` that would do nothing.

    >>> check_heeded({"label_smoothing_factor": 0.0, "push_to_hub": False, "weight_decay": 0.1})
    """
    for key, value in given.items():
        if key in REASONS and not _asks_nothing(key, value):
            raise InputError(f"the training argument {key} does nothing here: {REASONS[key]}")
    strategy = str(getattr(given.get("save_strategy"), "value", given.get("save_strategy", "")))
    if strategy == "best":
        raise InputError("save_strategy=best needs an evaluation during training; give steps or epoch")
    saves = strategy not in ("", "no") or "save_steps" in given
    for key in OF_CHECKPOINTS:
        if key in given and not saves and not _asks_nothing(key, given[key]):
            raise InputError(f"the training argument {key} does nothing here: {_CHECKPOINTS}")
    for key in TRACKERS:
        if key in given and not trackers(given.get("report_to")) and not _asks_nothing(key, given[key]):
            raise InputError(f"the training argument {key} does nothing here: {_TRACKER}")
    if "optim_target_modules" in given and not str(given.get("optim", "")).startswith(LOW_RANK_OPTIMIZERS):
        raise InputError(
            "the training argument optim_target_modules does nothing here: only a low-rank optimizer reads it, such as "
            "optim=galore_adamw; for LoRA say lora.target_modules, for which weights train --trainable"
        )
    schedule = str(getattr(given.get("lr_scheduler_type"), "value", given.get("lr_scheduler_type", "")))
    if schedule in NO_SCHEDULES:
        raise InputError(f"lr_scheduler_type={schedule} follows an evaluation during training, which there is none of")


@functools.cache
def names() -> dict[str, Any]:
    """Field name -> type of ``TrainingArguments``, but for what only older versions call so (``HABITS``)."""
    from transformers import TrainingArguments

    hints = get_type_hints(TrainingArguments)
    return {f.name: hints[f.name] for f in dataclasses.fields(TrainingArguments) if f.init and f.name not in HABITS}


def check_choice(key: str, value: Any) -> None:
    """Raise InputError where ``key`` is one of several words and ``value`` is none of them, or no JSON where it begins as
    such.
    """
    if key in ("log_level", "log_level_replica"):
        from transformers.training_args import trainer_log_levels

        if value not in trainer_log_levels:
            meant = nearest(str(value), trainer_log_levels)
            levels = ", ".join(trainer_log_levels)
            raise InputError(f"{key}={shortened(value)}: there is none such{meant}; there are {levels}")
    kinds = [kind for kind in get_args(names()[key]) if isinstance(kind, type)]
    words = [str(one.value) for kind in kinds if issubclass(kind, enum.Enum) for one in kind]
    if words and isinstance(value, str) and key not in ("debug", *REASONS) and value not in words:
        meant = nearest(WORDS.get(value, value), words)
        raise InputError(f"{key}={shortened(value)}: there is none such{meant}; there are {', '.join(words)}")
    if (
        key not in REASONS
        and dict in (get_origin(kind) or kind for kind in get_args(names()[key]))
        and isinstance(value, str)
    ):
        if not value.startswith("{") and not files.expanded(value).is_file():
            raise InputError(f'{key}={shortened(value)} is neither JSON, such as {{"key": 1}}, nor a file')
        if value.startswith("{"):
            try:
                json.loads(value)
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputError(f"{key}={shortened(value)} is not JSON: {str(error)[:80]}") from None


def check_optimizer_reads(args: Any, given: Mapping[str, Any], settings_of: Callable[[Any], Any]) -> None:
    """Raise InputError for an argument in ``given`` that the optimizer of ``args`` does not read: ``settings_of`` (args ->
    class and settings) gives the same without it.
    """
    for key in OF_OPTIMIZERS:
        if key in given and not _asks_nothing(key, given[key]):
            without = copy.copy(args)
            setattr(without, key, _usual()[key])
            if settings_of(without) == settings_of(args):
                raise InputError(
                    f"the training argument {key} does nothing here: optim={args.optim.value} does not read it"
                )


def several_processes() -> bool:
    """Whether a launcher started more than one process."""
    sizes = (os.environ.get(name) or "1" for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"))
    return any(size.isdigit() and int(size) > 1 for size in sizes)


def check_together(given: Mapping[str, Any]) -> None:
    """Raise InputError for arguments in ``given`` that lack what they need beside them: another argument, a package."""
    for key, beside in BESIDE.items():
        if key in given and not _asks_nothing(key, given[key]) and not given.get(beside):
            raise InputError(f"the training argument {key} does nothing here: give {beside} with it")
    for key, strategy in (("logging_steps", "logging_strategy"), ("save_steps", "save_strategy")):
        kind = str(getattr(given.get(strategy), "value", given.get(strategy, "steps")))
        if key in given and kind != "steps":
            raise InputError(f"{key} does nothing with {strategy}={kind}; leave out one of the two")
    if given.get("warmup_steps") and given.get("lr_scheduler_type") == "constant":
        raise InputError("warmup_steps does nothing with lr_scheduler_type=constant; say constant_with_warmup")
    if given.get("deepspeed") and find_spec("deepspeed") is None:
        raise InputError("the training argument deepspeed needs the package deepspeed: pip install deepspeed")
    parts = [part for part in str(given.get("optim_args") or "").split(",") if part.strip()]
    if bad := next((part for part in parts if "=" not in part), None):
        raise InputError(f"optim_args={shortened(bad)} is no setting of an optimizer; write key=value,key=value")
    optim = str(getattr(given.get("optim"), "value", given.get("optim", "")))
    optimizers.check_package(optim)
    family = next((name for name in LOW_RANK_OPTIMIZERS if name in optim), None)
    if family is None:
        return
    package = {"galore": "galore_torch", "apollo": "apollo_torch", "lomo": "lomo_optim"}[family]
    if find_spec(package) is None:
        raise InputError(
            f"optim={optim} needs the package {package.replace('_', '-')}: pip install {package.replace('_', '-')}"
        )
    if family != "lomo" and not given.get("optim_target_modules"):
        raise InputError(f"optim={optim} needs optim_target_modules, such as optim_target_modules=all-linear")


def check_several(given: Mapping[str, Any]) -> None:
    """Raise InputError for arguments in ``given`` of several processes where this is the only one."""
    if several_processes():
        return
    start = "start several with --processes N or torchrun, or leave it out"
    for key in OF_SEVERAL:
        if given.get(key) is not None:
            raise InputError(f"{key} is of several processes, and this is one: {start}")
    if given.get("fsdp"):
        raise InputError(f"fsdp shards a model over several processes, and this is one: {start}")


def _asks_nothing(key: str, value: Any) -> bool:
    value = getattr(value, "value", value)
    usual = getattr(_usual().get(key), "value", _usual().get(key))
    return value is None or value == usual or value == [] or (value is False and usual is None)


def trackers(report_to: Any) -> list[str]:
    """The trackers that ``report_to`` names: a name, several with commas between, a list, or none.

    >>> trackers("tensorboard, wandb"), trackers("none"), trackers(None)
    (['tensorboard', 'wandb'], [], [])
    """
    listed = report_to.strip("[]").split(",") if isinstance(report_to, str) else list(report_to or [])
    named = [str(one).strip(" '\"") for one in listed]
    return [one for one in named if one and one != "none"]


def check_trackers(names: list[str]) -> None:
    """Raise InputError for a tracker that transformers does not know, or whose package is not installed."""
    from transformers import integrations
    from transformers.integrations import integration_utils

    if names == ["all"]:
        return
    known = sorted(integration_utils.INTEGRATION_TO_CALLBACK)
    for name in names:
        if name not in known:
            raise InputError(
                f"report_to={name}: there is no such tracker{nearest(name, known)}; transformers has {', '.join(known)}"
            )
        module = {"comet_ml": "comet", "azure_ml": "azureml", "flyte": "flytekit"}.get(name, name)
        available = getattr(integrations, f"is_{module}_available", None)
        if available is not None and not available():
            raise InputError(f"report_to={name} needs the package {name}: pip install {name}, or leave it out")
