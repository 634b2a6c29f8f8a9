"""A graphics card made of nothing: the meta device, from which no number can be read back.

On CUDA every look at a value makes the host wait for the card.  On the meta device there is no value, so the same code
fails at that line; what it copies to the card without waiting is told apart by its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback, TrainingArguments

from expunge.forward import transfer
from expunge.models import lora
from expunge.training import finite
from expunge.training.reference import Reference

CARD = torch.device("meta")


class HostWaits(AssertionError):
    """The host would have waited for the card."""


class NoWaiting(TorchDispatchMode):
    """Fails at an operation that reads from the card, or copies to it and waits until it has arrived."""

    READS = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "bincount",
        "equal",
        "is_nonzero",
        "_unique2",
        "unique_dim",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        given = [a for a in args if isinstance(a, Tensor)]
        listed = [t for a in args if isinstance(a, list | tuple) for t in a if isinstance(t, Tensor)]
        on_card = [t for t in given + listed if t.device == CARD]
        if name in self.READS and on_card:
            raise HostWaits(name)
        if name in ("index", "index_put", "index_put_") and on_card:
            if any(t.dtype in (torch.bool, torch.uint8) or t.device != CARD for t in listed):
                raise HostWaits(f"{name} by a mask, or by places on the host")
            if any(t.device != CARD for t in given):
                raise HostWaits(f"{name} of a number on the host")
        if name == "where" and on_card and any(t.device != CARD for t in given):
            raise HostWaits("where with a number of the host's")
        if name == "_to_copy" and (target := kwargs.get("device")) is not None:
            moves = torch.device(target) != given[0].device
            if moves and (given[0].device == CARD or not kwargs.get("non_blocking")):
                raise HostWaits(f"a copy from {given[0].device} to {target}")
        if name == "copy_" and given[0].device != given[1].device:
            waits = given[1].device == CARD or not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if waits and given[1].numel():
                raise HostWaits("copy_ between host and card")
        return func(*args, **kwargs)


class NothingMade(TorchFunctionMode):
    """Fails where numbers of the host's are made into a tensor on the card: they are copied, and waited for."""

    MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in self.MAKERS and made.device == CARD and not any(made is a for a in args):
            raise HostWaits(f"{func.__name__} of numbers of the host's")
        return made


@contextmanager
def no_waiting() -> Iterator[None]:
    """While open, HostWaits is raised where the host would wait for the card."""
    with NothingMade(), NoWaiting():
        yield


class Stop(Exception):
    """The step that was to be seen is over."""


class Watched(TrainerCallback):
    """Watches the first optimizer step whole: from the batch that is fetched to the end of the step."""

    def __init__(self) -> None:
        self.watch = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.enter_context(no_waiting())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise Stop


def autocast_enabled(*device_type: str, _known: Any = torch.is_autocast_enabled) -> bool:
    """As torch's own, which in older versions knows no autocast on the meta device."""
    return device_type != (CARD.type,) and bool(_known(*device_type))


@contextmanager
def on_card(trainer: Any) -> Iterator[None]:
    """While open, ``trainer``, which was made on the CPU, trains on the card."""
    reference = trainer.reference
    if reference.logp is not None:  # kept where the model is
        rows = {s: {i: v.to(CARD) for i, v in found.items()} for s, found in reference.logp.rows.items()}
        reference = Reference(**{**vars(reference), "logp": type(reference.logp)(rows)})
    for module in (reference.copy, reference.hidden and reference.hidden.head):
        if module is not None:
            module.to(CARD)
    with ExitStack() as stack:
        for what in (
            patch.object(trainer, "reference", reference),
            patch.object(TrainingArguments, "device", CARD),
            patch.object(trainer.accelerator.state, "device", CARD),
            patch.object(trainer.accelerator.dataloader_config, "non_blocking", True),
            patch.object(transfer.Arriving, "read", lambda self: [1.0] * len(self._value)),
            patch.object(trainer.health, "late", True),
            patch.object(torch, "is_autocast_enabled", autocast_enabled),
            patch.object(lora, "start_of", lambda _: {}),  # before the first step
            patch.object(finite, "copy_of", lambda model, step, into=None: finite.Copy(step, {})),
        ):
            stack.enter_context(what)
        trainer.model.to(CARD)
        yield


def step_without_waiting(trainer: Any) -> None:
    """Let ``trainer`` take a step on the card; HostWaits, or torch's own error, where the host would wait."""
    watched = Watched()
    trainer.add_callback(watched)
    with on_card(trainer):
        try:
            trainer.train()
        except Stop:
            return
        finally:
            watched.watch.close()
    raise AssertionError("the training ended before its first step")
