"""Micro-batches that fit: out of memory halves them, the step is done again from its beginning, and its rows stay the same.

transformers counts steps and rows as it was told; what it hands over as one micro-batch is cut into pieces of at most
``Fit.rows`` rows, each of which is to training what a micro-batch is: a step's means are over the step either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from expunge.errors import RunFailed

Batch = Mapping[str, Any]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the machine or the accelerator has no memory left.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    """
    said = str(error).lower()
    of_torch = isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    return of_torch or isinstance(error, MemoryError | torch.OutOfMemoryError)


@dataclass
class Fit:
    """The rows of a micro-batch: as many as were ``given`` until memory ran out, ``rows`` since; ``halved``: in which
    optimizer steps (counted from 1) they became how many.
    """

    given: int
    rows: int = 0
    halved: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = self.rows or self.given

    def halve(self, step: int) -> None:
        """Half the rows, rounded up, from optimizer step ``step`` on; raises RunFailed where there is one row."""
        if self.rows == 1:
            raise RunFailed(f"out of memory at step {step} with one row in a micro-batch: {HELPS}")
        self.rows = -(-self.rows // 2)
        self.halved.append((step, self.rows))

    def pieces(self, rows: int) -> int:
        """Into how many pieces a micro-batch of ``rows`` rows is cut.

        >>> Fit(8, 4).pieces(8), Fit(8, 4).pieces(5), Fit(8, 4).pieces(1)
        (2, 2, 1)
        """
        return -(-rows // self.rows)

    def warning(self, steps: int) -> str | None:
        """What a person is told of micro-batches that were halved; ``steps``: the accumulation steps that were given."""
        if not self.halved:
            return None
        at = ", ".join(str(step) for step, _ in dict(self.halved).items())
        return (
            f"out of memory at step {at}: micro-batches had {self.given} rows and have {self.rows} since then; a step has "
            f"the same rows as before. per_device_train_batch_size={self.rows} "
            f"gradient_accumulation_steps={steps * self.pieces(self.given)} from the start saves the attempts"
        )

    def described(self) -> list[dict[str, int]]:
        """For the record: in which step micro-batches came to have how many rows."""
        return [{"step": step, "rows": rows} for step, rows in self.halved]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"rows": self.rows, "halved": self.halved}

    def take(self, state: Mapping[str, Any] | None) -> None:
        """Go on with what :meth:`state` gave, unless less was given this time."""
        if state:
            self.rows = min(self.given, int(state["rows"]))
            self.halved = [(int(step), int(rows)) for step, rows in state["halved"]]


HELPS = (
    "what helps is gradient_checkpointing=true, a lower max_length, LoRA (--adapter lora) over weights in --dtype bfloat16 "
    "or --quantize nf4, or a smaller model; `expunge plan` says what a run takes"
)
SHARDED = (
    "the others wait for it in the middle of the step, so it cannot be done again: start with half of "
    "per_device_train_batch_size and twice gradient_accumulation_steps"
)


def cut(
    batch: Batch, rows: int, examples: Mapping[str, Sequence[Any]], collate: Callable[[Sequence[Any]], Any]
) -> list[Batch]:
    """``batch`` in pieces of at most ``rows`` rows, which are collated again; ``examples``: of each stream its rows."""
    streams = {name: b for name, b in batch.items() if name != "counts"}
    many = max(len(b["labels"]) for b in streams.values())
    if many <= rows:
        return [batch]
    whole = {s: [_row(examples[s][int(i)], int(i)) for i in b["index"]] for s, b in streams.items()}
    return [
        collate([{s: whole[s][i] for s in streams} for i in range(begin, min(begin + rows, many))])
        for begin in range(0, many, rows)
    ]


def _row(example: Any, index: int) -> dict[str, Any]:
    return {"input_ids": example.input_ids, "labels": example.labels, "index": index}


@dataclass(frozen=True)
class Chance:
    """The state of the random numbers that a step draws: torch's on the CPU and on ``device``."""

    device: torch.device
    cpu: torch.Tensor
    card: torch.Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> Chance:
        """As it is; no device is waited for."""
        return cls(device, torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self) -> None:
        """Draw the same numbers again."""
        torch.set_rng_state(self.cpu)
        if self.card is not None:
            torch.cuda.set_rng_state(self.card, self.device)
