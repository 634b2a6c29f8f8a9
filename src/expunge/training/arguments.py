"""Training arguments that suit the method and the size of the data, where the user gives none.

Every name is a field of ``transformers.TrainingArguments``; what the user gives wins.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.errors import InputError, nearest
from expunge.method import Method
from expunge.sophia import OPTIMIZERS, Settings

BATCH = 8  # rows of each stream in a micro-batch
EPOCHS = 10  # of the TOFU and MUSE papers
LEAST_STEPS = 50  # a small forget set is seen more often than ten times
SOPHIA_DECAY = 0.1  # Sophia's weight decay, and that of SOUL's TOFU configurations
LORA_FACTOR = 20  # a LoRA learning rate over the full fine-tuning rate of the papers: 1e-5 -> 2e-4


def defaults(method: Method, forget_rows: int, *, lora: bool) -> dict[str, Any]:
    """Learning rate of the method's paper, ten epochs but at least 50 optimizer steps of 8 to 32 rows.

    For LoRA the rate is the paper's own for LoRA, or 20 × the one for full fine-tuning where it has none.

    The optimizer step grows with the forget set: 8 rows up to 160, then a 20th of the set, at most the papers' 32.
    """
    batch = min(BATCH, forget_rows)
    accumulate = max(1, min(4, forget_rows // (20 * BATCH)))
    steps_per_epoch = math.ceil(math.ceil(forget_rows / batch) / accumulate)
    epochs = max(EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch))
    return {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulate,
        "num_train_epochs": float(epochs),
        "learning_rate": _rate(method, lora),
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,  # below 1: a share of all steps, however many there are in the end
        "weight_decay": SOPHIA_DECAY if method.optimizer else 0.01,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": False,  # else it follows the log level
    }


def _rate(method: Method, lora: bool) -> float:
    if not lora:
        return method.learning_rate
    own = method.lora_learning_rate
    return method.learning_rate * LORA_FACTOR if own is None else own


def arguments(given: Mapping[str, Any], suited: Mapping[str, Any], folder: Path, seed: int) -> Any:
    """``TrainingArguments`` of ``suited`` overridden by ``given``; a wrong name or value is one clear sentence."""
    from transformers import TrainingArguments

    chosen = {**suited, **{key: parse(key, value) for key, value in given.items()}}
    fixed: dict[str, Any] = {"output_dir": str(folder), "remove_unused_columns": False, "seed": seed}
    for key in sorted(fixed.keys() & given.keys()):
        raise InputError(f"the training argument {key} is set by expunge; leave it out (for the seed, use --seed)")
    try:
        return TrainingArguments(**chosen, **fixed)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"the training arguments do not fit: {str(error).splitlines()[0]}") from error


def total_steps(args: Any, n: int) -> int:
    """The optimizer steps of ``TrainingArguments`` on ``n`` forget rows: ``max_steps``, or as many as the epochs have."""
    batch, together = args.per_device_train_batch_size, args.gradient_accumulation_steps
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
    from pydantic import TypeAdapter, ValidationError

    known = {f.name for f in dataclasses.fields(Settings)}
    for key in parameters:
        if key not in known:
            raise InputError(f"Sophia has no setting {key!r}{nearest(key, known)}; it takes {', '.join(sorted(known))}")
    try:
        return TypeAdapter(Settings).validate_python({**dataclasses.asdict(base), **parameters})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"optimizer.{first['loc'][-1]}={first['input']!r} does not fit: {first['msg']}") from None


@functools.cache
def names() -> dict[str, Any]:
    """Field name -> type of ``TrainingArguments``."""
    from transformers import TrainingArguments

    return {f.name: f.type for f in dataclasses.fields(TrainingArguments) if f.init}


def parse(key: str, value: Any) -> Any:
    """``value`` as ``TrainingArguments`` wants it for ``key``: a string from the command line takes the field's type."""
    if key not in names():
        raise InputError(
            f"there is no training argument {key!r}{nearest(key, names())}; they are those of transformers.TrainingArguments"
        )
    if not isinstance(value, str):
        return value
    kind = str(names()[key])
    text = value.strip()
    if text.lower() in ("true", "false") and "bool" in kind:
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    for convert, word in ((int, "int"), (float, "float")):
        if word in kind:
            try:
                return convert(text)
            except ValueError:
                continue
    if "str" not in kind and ("int" in kind or "float" in kind or "bool" in kind):
        raise InputError(
            f"the training argument {key}={value!r} is not of type {kind.removeprefix('<class ').strip('>')}"
        )
    return value
