"""The memory that a run may take: of the card or the main memory of this machine, or of a card that is stated."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.plan.parts import Memory

CONTEXT = 600e6  # bytes of a card that CUDA, its libraries and what lies between tensors take
PROCESS = 700e6  # bytes of main memory that a process holds beside tensors: Python, torch, transformers


@dataclass(frozen=True)
class Machine:
    """``usable`` bytes of a device, called ``name``; ``cards``: how many of them are here (None: nobody knows);
    ``main``: bytes of main memory that are free, None where the machine is not here.
    """

    name: str
    usable: float
    main: float | None
    cards: int | None = None


def stated(memory: float) -> Machine:
    """A machine with cards of that ``memory``."""
    return Machine(f"a card with {memory / 1e9:.4g} GB", memory - CONTEXT, None)


def this_one(*, gpu: bool) -> Machine:
    """This machine as it is now: what is free of its card, or of its main memory."""
    import psutil
    import torch

    free = float(psutil.virtual_memory().available)
    if gpu and torch.cuda.is_available():
        left, _ = torch.cuda.mem_get_info()
        return Machine(torch.cuda.get_device_name(), left - CONTEXT, free, torch.cuda.device_count())
    name = "the main memory of this machine" + (", which its accelerator shares" if gpu else "")
    return Machine(name, free - PROCESS, free)


def fits(memory: Memory, machine: Machine, processes: int, *, gpu: bool) -> bool:
    """Whether so many ``processes`` that take ``memory`` fit: each on a card of its own, or together in main memory."""
    if not gpu:
        return processes * memory.peak + (processes - 1) * PROCESS <= machine.usable
    if machine.cards is not None and processes > machine.cards:
        return False
    return memory.peak <= machine.usable and (machine.main is None or processes * memory.main <= machine.main)
