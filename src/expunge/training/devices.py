"""Where a run trains: on the device that was named, and on one accelerator a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from expunge.errors import InputError
from expunge.training.refused import several_processes


def on_cpu(device: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The training argument that keeps a run on the CPU where ``device`` says so; InputError where ``given`` contradicts it.

    >>> on_cpu("cpu", {}), on_cpu("cuda", {}), on_cpu(None, {})
    ({'use_cpu': True}, {}, {})
    """
    kind = None if device is None else str(device).partition(":")[0]
    if kind not in (None, "cpu") and given.get("use_cpu"):
        raise InputError(f"device={device} and use_cpu=true contradict each other; leave out one of the two")
    return {"use_cpu": True} if kind == "cpu" and not given.get("use_cpu") else {}


def place(args: Any, device: Any) -> None:
    """Let training under ``args`` run on ``device``, or where None is given on the first accelerator.

    transformers trains on the first card whatever the model is on, and cuts each batch over all cards that a single
    process sees, which no objective here could be part of.  Raises InputError for a card by number under a launcher, which
    gives each process its own.
    """
    import torch

    args._n_gpu = min(args.n_gpu, 1)
    wanted = None if device is None else torch.device(device)
    if wanted is None or wanted.index is None or wanted.type != "cuda" or wanted == args.device:
        return
    if several_processes():
        raise InputError(
            f"device={device} is one card, and the launcher gives each process its own; say cuda, or leave it out"
        )
    torch.cuda.set_device(wanted)
    args.__dict__["_setup_devices"] = wanted
    args.distributed_state.device = wanted


@contextmanager
def undisturbed() -> Iterator[None]:
    """While open, ``TrainingArguments`` may be made that nobody trains under.

    Each one makes accelerate forget which device and which processes the last one named; they are put back.
    """
    import torch
    from accelerate.state import AcceleratorState, PartialState

    held = [(state, dict(state._shared_state)) for state in (PartialState, AcceleratorState)]
    card = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        for state, values in held:
            state._shared_state.clear()
            state._shared_state.update(values)
        if card is not None:
            torch.cuda.set_device(card)
