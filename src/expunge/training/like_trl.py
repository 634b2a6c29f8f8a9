"""The trainer from rows and a tokenizer, as TRL's trainers are made: what a :class:`PairedDataset` needs is made here.

``UnlearningTrainer(model, args, train_dataset={"forget": rows, "retain": rows}, processing_class=tokenizer, method="npo")``.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments

from expunge import models
from expunge.data import chat, collate, sources, streams
from expunge.errors import InputError
from expunge.method import Method, build

DEFAULT = "npo"
NAMES = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self"]


def named(values: tuple[Any, ...]) -> dict[str, Any]:
    """Positional arguments of ``transformers.Trainer`` by name."""
    return dict(zip(NAMES, values, strict=False))


def prepared(
    given: Mapping[str, Any],
    method: Method | str | None,
    peft_config: Any = None,
    *,
    level: Any = None,
    max_length: int = 512,
    chat_template: bool = True,
) -> tuple[dict[str, Any], Method]:
    """The arguments of ``Trainer``, and the method.

    ``train_dataset``: rows by stream, ``{"forget": …, "retain": …}`` (a ``DatasetDict`` too), each as
    :func:`expunge.unlearn` takes them; a ``PairedDataset`` stays as it is.  ``model``: a model, or a name that
    :func:`expunge.models.load` takes, whose tokenizer it then has too unless one is given.
    ``peft_config``: the model gets this adapter, and only that trains.  ``level``: what the trainer was given, for a
    method that reads one.  Raises InputError where a method needs an alternate answer, or a level and there
    is none: ``expunge.unlearn`` makes them.
    """
    out = dict(given)
    chosen = build(method or DEFAULT) if method is None or isinstance(method, str) else method
    model, dataset = out.get("model"), out.get("train_dataset")
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else None
    if name is not None:
        loaded = models.load(name)
        out["model"] = loaded.model
        if out.get("processing_class") is None:
            out["processing_class"] = loaded.tokenizer
    if isinstance(dataset, Mapping):
        out |= _with_rows(out, dataset, chosen, level, max_length, chat_template)
    if peft_config is not None:
        from peft import PeftModel, get_peft_model

        if isinstance(out["model"], PeftModel):
            raise InputError("the model has an adapter already; leave peft_config out, or give the plain model")
        out["model"] = get_peft_model(out["model"], peft_config)
    return out, chosen


def check_complete(method: Method, given: Mapping[str, Any], level: Any) -> None:
    """Raise InputError where ``method`` reads more than the rows that are ``given``, by stream, and the ``level``."""
    if method.alternate or (method.reads_level and level is None):
        needs = "other answers to the forget questions" if method.alternate else "a level (level=, a model or its name)"
        raise InputError(
            f"{method.name} needs {needs} beside forget and retain rows; use expunge.unlearn, which makes what is missing, "
            "or a method such as npo"
        )
    if missing := [stream for stream in method.streams if stream not in given]:
        raise InputError(
            f"{method.name} reads {missing[0]} rows, and there are none; give them beside the {', '.join(given)} rows"
        )


def level_of(given: Any) -> Any:
    """What the reference takes as its level: a loader of a model or of its name; anything else as it is."""
    if isinstance(given, str | os.PathLike):
        return lambda: models.load(os.fspath(given)).model
    return (lambda: given) if isinstance(given, nn.Module) else given


def _with_rows(
    out: Mapping[str, Any],
    dataset: Mapping[str, Any],
    method: Method,
    level: Any,
    max_length: int,
    chat_template: bool,
) -> dict[str, Any]:
    """Data set, collator, tokenizer and arguments."""
    check_complete(method, dataset, level)
    tokenizer: Any = out.get("processing_class")
    if tokenizer is None:
        raise InputError("processing_class is missing: give the model's tokenizer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    args = copy.copy(out["args"]) if out.get("args") is not None else TrainingArguments(output_dir="unlearned")
    args.remove_unused_columns = False  # rows come by stream
    templated = chat_template and bool(getattr(tokenizer, "chat_template", None))
    encode = partial(chat.encode, tokenizer=tokenizer, max_length=max_length, chat_template=templated)
    examples = {stream: [encode(row) for row in sources.load_rows(dataset[stream])] for stream in method.streams}
    window = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {
        "args": args,
        "processing_class": tokenizer,
        "train_dataset": streams.PairedDataset(examples, seed=args.seed, window=min(window, len(examples["forget"]))),
        "data_collator": out.get("data_collator") or partial(collate.collate, pad_id=tokenizer.pad_token_id),
    }
