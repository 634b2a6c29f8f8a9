"""How a step's rows are shared by several processes: by default they take together what one process would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.errors import InputError

ROWS, PARTS = "per_device_train_batch_size", "gradient_accumulation_steps"


def divided(suited: Mapping[str, Any], given: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """The default training arguments ``suited`` for each of several ``processes``, so that a step has the same rows.

    A batch size that the user has ``given`` stays what transformers says it is, the rows of one process; a step has
    ``processes`` times as many then.  Raises InputError where the default step does not divide.

    >>> suited = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    >>> divided(suited, {}, 4)
    {'per_device_train_batch_size': 2, 'gradient_accumulation_steps': 2}
    >>> divided(suited, {}, 16)
    {'per_device_train_batch_size': 1, 'gradient_accumulation_steps': 1}
    """
    if processes == 1 or ROWS in given:
        return dict(suited)
    rows, parts = suited[ROWS], suited[PARTS]
    for fewer in range(parts, 0, -1) if PARTS not in given else [parts]:
        if parts % fewer == 0 and (rows * parts // fewer) % processes == 0:
            return {**suited, ROWS: rows * parts // fewer // processes, PARTS: fewer}
    step = rows * parts if PARTS not in given else rows
    fitting = [str(n) for n in range(2, step + 1) if step % n == 0] or ["1"]
    raise InputError(
        f"{processes} processes cannot share {'a step' if PARTS not in given else 'a batch'} of {step} rows evenly: start "
        f"{', '.join(fitting[:-1])}{' or ' * (len(fitting) > 1)}{fitting[-1]}, or give {ROWS}, the rows of each process"
    )
