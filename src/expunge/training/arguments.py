"""Training arguments that suit the method and the size of the data, where the user gives none.

Every name is a field of ``transformers.TrainingArguments``; what the user gives wins.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from expunge.errors import InputError, nearest, shortened
from expunge.method import Method
from expunge.methods.levels import WARMUP
from expunge.settings import check_filled
from expunge.sophia import OPTIMIZERS, Settings
from expunge.training import devices, optimizers
from expunge.training.refused import (
    LOW_RANK_OPTIMIZERS,
    REASONS,
    check_choice,
    check_heeded,
    check_optimizer_reads,
    check_several,
    check_together,
    check_trackers,
    habit,
    several_processes,
    trackers,
)
from expunge.training.refused import names as names

BATCH = 8  # rows of each stream in a micro-batch
EPOCHS = 10  # of the TOFU and MUSE papers
LEVEL_EPOCHS = 4  # times as many epochs at most where a method ends by itself
WARMUP_SHARE = 0.1  # of all steps, however many there are in the end
MIN_STEPS = 50  # a small forget set is seen more often than ten times
SOPHIA_DECAY = 0.1  # Sophia's weight decay, and that of SOUL's TOFU configurations
LORA_FACTOR = 20  # a LoRA learning rate over the full fine-tuning rate of the papers: 1e-5 -> 2e-4


def defaults(method: Method, forget_rows: int, *, lora: bool) -> dict[str, Any]:
    """Learning rate of the method's paper, ten epochs but at least 50 optimizer steps of 8 to 32 rows.

    For LoRA the rate is the paper's own for LoRA, or 20 × the one for full fine-tuning where it has none.

    A method that ends by itself, at a level, may take four times as many epochs, at a constant rate after ten steps; that
    rate is only used where :mod:`expunge.training.rate` finds none.

    The optimizer step grows with the forget set: 8 rows up to 160, then a 20th of the set, at most the papers' 32.
    """
    batch = min(BATCH, forget_rows)
    accumulate = max(1, min(4, forget_rows // (20 * BATCH)))
    steps_per_epoch = math.ceil(math.ceil(forget_rows / batch) / accumulate)
    epochs = max(EPOCHS, math.ceil(MIN_STEPS / steps_per_epoch)) * (LEVEL_EPOCHS if method.reads_level else 1)
    return {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulate,
        "num_train_epochs": float(epochs),
        "learning_rate": _rate(method, lora),
        "lr_scheduler_type": "constant_with_warmup" if method.reads_level else "linear",
        "warmup_steps": WARMUP if method.reads_level else WARMUP_SHARE,
        "weight_decay": SOPHIA_DECAY if method.optimizer else 0.01,
        "max_grad_norm": 1.0,
        **_suited_to_cuda(method),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": False,  # else it follows the log level
    }


def _suited_to_cuda(method: Method) -> dict[str, Any]:
    """On a card that can: forward and backward in bfloat16 over weights in float32, and AdamW in one kernel.

    Not where the curvature takes differences of gradients, which bfloat16 rounds away.
    """
    import torch

    if not torch.cuda.is_available():
        return {"optim": "adamw_torch"}
    exact = method.optimizer is not None and method.optimizer.curvature == "hutchinson"
    return {"optim": "adamw_torch_fused", "bf16": torch.cuda.is_bf16_supported() and not exact}


def _rate(method: Method, lora: bool) -> float:
    if not lora:
        return method.learning_rate
    own = method.lora_learning_rate
    return method.learning_rate * LORA_FACTOR if own is None else own


def arguments(
    given: Mapping[str, Any], suited: Mapping[str, Any], folder: Path, seed: int, device: str | None = None
) -> Any:
    """``TrainingArguments`` of ``suited`` under ``given``, on ``device``; a wrong name or value is one clear sentence.

    Under a launcher on a machine without an accelerator the processes train together, on the CPU.
    """
    from transformers import TrainingArguments

    chosen = parsed(given)
    check_several(chosen)  # the process that starts the others is one
    fixed: dict[str, Any] = {"output_dir": str(folder), "remove_unused_columns": False, "seed": seed}
    for key in sorted(fixed.keys() & given.keys()):
        raise InputError(f"the training argument {key} is set by expunge; leave it out (for the seed, use --seed)")
    if "save_steps" in chosen:
        chosen.setdefault("save_strategy", "steps")
    on_cpu = devices.on_cpu(device, chosen)
    whole = {**suited, **_together_on_cpu(), **on_cpu, **chosen, **fixed}
    if whole.get("bf16") and "bf16" not in chosen and (whole.get("use_cpu") or whole.get("fp16")):
        del whole["bf16"]  # suited, but not asked for, and the user chose otherwise
    if whole.get("use_cpu") and "optim" not in chosen:
        whole["optim"] = "adamw_torch"
    try:
        made = TrainingArguments(**whole)
    except (TypeError, ValueError, ImportError, RuntimeError, OSError, NotImplementedError) as error:
        raise InputError(_reason(error, whole)) from error
    _check_made(made, chosen)
    devices.place(made, device)
    return made


def parsed(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with the fields' types; raises InputError for what is unknown, does not fit or would do nothing."""
    chosen = {key: parse(key, value) for key, value in given.items()}
    check_filled(given, "the training arguments")
    check_heeded(chosen)
    for key, value in chosen.items():
        check_range(key, value)
    check_together(chosen)
    if "report_to" in chosen:
        check_trackers(chosen["report_to"])
    return chosen


def _together_on_cpu() -> dict[str, Any]:
    """What makes several processes without an accelerator train one model, not one each."""
    import torch

    several = several_processes()
    accelerated = torch.accelerator.is_available()
    return {"use_cpu": True, "ddp_backend": "gloo"} if several and not accelerated else {}


def _reason(error: Exception, given: Mapping[str, Any]) -> str:
    import torch

    if given.get("bf16") and not given.get("use_cpu") and not torch.cuda.is_available():
        return (
            "bf16=true needs a GPU that computes in bfloat16, and there is none here; leave it out, or say use_cpu=true "
            "too to have it on the CPU"
        )
    if isinstance(error, OSError) and error.filename:
        return f"the training arguments do not fit: {error.filename}: {(error.strerror or 'an error').lower()}"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the training arguments do not fit: {lines[0]}"


def _check_made(args: Any, given: Mapping[str, Any]) -> None:
    """Raise InputError for an optimizer, a schedule or a number format that could not be had when training starts."""
    import torch
    from transformers import Trainer
    from transformers.optimization import get_scheduler

    if args.fp16 and not torch.cuda.is_available():
        raise InputError("fp16=true needs a GPU, and there is none here; leave it out")
    try:
        if not args.optim.value.startswith(LOW_RANK_OPTIMIZERS):
            optimizers.check_device(args.optim.value, args)
            check_optimizer_reads(args, given, Trainer.get_optimizer_cls_and_kwargs)
            made = Trainer.get_optimizer_cls_and_kwargs(args)
            if args.device.type == "cpu":
                optimizers.check_step(args.optim.value, *made)
    except InputError:
        raise
    except (ImportError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"optim={args.optim.value} cannot be used: {str(error).strip().splitlines()[0]}") from error
    plain = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    try:
        get_scheduler(args.lr_scheduler_type, plain, 1, 10, args.lr_scheduler_kwargs)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"lr_scheduler_type={args.lr_scheduler_type.value} does not take these lr_scheduler_kwargs: {error}"
        ) from error


def total_steps(args: Any, n: int) -> int:
    """The optimizer steps of ``TrainingArguments`` on ``n`` forget rows: ``max_steps``, or as many as the epochs have."""
    batch, together = args.train_batch_size * args.world_size, args.gradient_accumulation_steps
    steps: int = args.max_steps
    return steps if steps > 0 else math.ceil(args.num_train_epochs * math.ceil(math.ceil(n / batch) / together))


def optimized(method: Method, name: str | None, parameters: Mapping[str, Any], training: Mapping[str, Any]) -> Method:
    """``method`` under the optimizer ``name`` (None: its own) and its ``parameters``, fields of ``sophia.Settings``.

    Raises InputError for a wrong name or value, and for ``training`` arguments that would go unheard under Sophia.
    """
    if name is not None and name not in OPTIMIZERS:
        raise InputError(
            f"there is no optimizer {name!r}{nearest(name, OPTIMIZERS)}; there are {', '.join(OPTIMIZERS)}"
        )
    own = method.optimizer
    chosen = own if name is None or (name == "sophia" and own) else OPTIMIZERS[name]
    if chosen is None:
        for key in parameters:
            raise InputError(f"optimizer.{key} is a setting of Sophia; say --optimizer sophia, or leave it out")
        return dataclasses.replace(method, optimizer=None)
    for key in training:
        if key.startswith(("optim", "adam_")):
            raise InputError(
                f"the training argument {key} is for transformers' own optimizers, and {method.name} trains with Sophia; "
                "leave it out, or say --optimizer adamw"
            )
    return dataclasses.replace(method, optimizer=_settings(chosen, parameters))


def _settings(base: Settings, parameters: Mapping[str, Any]) -> Settings:
    """``base`` with ``parameters``, checked; strings such as ``"0.5"`` are welcome."""
    known = {f.name for f in dataclasses.fields(Settings)}
    for key in parameters:
        if key not in known:
            raise InputError(f"Sophia has no setting {key!r}{nearest(key, known)}; it takes {', '.join(sorted(known))}")
    try:
        return TypeAdapter(Settings).validate_python({**dataclasses.asdict(base), **parameters})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"optimizer.{first['loc'][-1]}={first['input']!r} does not fit: {first['msg']}") from None


def parse(key: str, value: Any) -> Any:
    """``value`` as ``TrainingArguments`` wants it for ``key``: a string from the command line takes the field's type."""
    if key not in names():
        said = habit(key) or f"{nearest(key, names())}; they are those of transformers.TrainingArguments"
        raise InputError(f"there is no training argument {key!r}{said}")
    kind = names()[key]
    if key == "report_to":
        return trackers(value)
    if key == "resume_from_checkpoint" and isinstance(value, bool | Path):
        return value if value is True else (str(value) if value else None)  # True: the newest
    if key == "fsdp" and str(value).strip().lower() == "true":
        return True  # as newer transformers say it
    if isinstance(value, str):
        value = value.strip()
        if value.lower() == "none" and type(None) in get_args(kind):
            return None
    check_choice(key, value)
    try:
        fitting = _reader(key).validate_python(value)
    except ValidationError:
        if key in REASONS:
            raise InputError(f"the training argument {key} does nothing here: {REASONS[key]}") from None
        wanted = getattr(kind, "__name__", "") if isinstance(kind, type) else str(kind).replace("typing.", "")
        raise InputError(f"the training argument {key}={shortened(value)} is not of type {wanted}") from None
    except RecursionError:
        raise InputError(f"the training argument {key} is nested too deeply") from None
    return fitting


@functools.cache
def _reader(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(names()[key], config=ConfigDict(arbitrary_types_allowed=True))


MAX_FLOAT = 1e30  # a float32 holds more, but not what is made of it
# Argument -> (the least value, whether it is allowed itself).
MINIMUM: dict[str, tuple[float, bool]] = {
    **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps", "save_total_limit"), (1, True)),
    **dict.fromkeys(("num_train_epochs", "learning_rate", "logging_steps", "save_steps", "ddp_timeout"), (0, False)),
    **dict.fromkeys(
        (
            "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon", "warmup_steps",
            "dataloader_num_workers",
        ),
        (0, True),
    ),
}  # fmt: skip


def check_range(key: str, value: Any) -> None:
    """Raise InputError for a number that is not finite, or outside what ``key`` can be.

    >>> check_range("learning_rate", 1e-4)
    >>> check_range("learning_rate", -1.0)
    Traceback (most recent call last):
        ...
    expunge.errors.InputError: the training argument learning_rate must be above 0, not -1.0
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if not math.isfinite(value):
        raise InputError(f"the training argument {key} must be a finite number, not {value}")
    if abs(value) >= (MAX_FLOAT if isinstance(value, float) else 2**63):
        raise InputError(f"the training argument {key} is too large a number: {shortened(value)}")
    if key == "max_steps" and value < 1 and value != -1:
        raise InputError(f"max_steps={value} trains nothing; give 1 or more, or leave it out for whole epochs")
    least, allowed = MINIMUM.get(key, (-math.inf, True))
    if value < least or (value == least and not allowed):
        raise InputError(
            f"the training argument {key} must be {'at least' if allowed else 'above'} {least}, not {value}"
        )
    if key in ("adam_beta1", "adam_beta2") and value >= 1:
        raise InputError(f"the training argument {key} must be below 1, not {value}")
