"""How a step's rows are shared by several processes: by default they take together what one process would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.errors import InputError

ROWS, PARTS = "per_device_train_batch_size", "gradient_accumulation_steps"


def divided(suited: Mapping[str, Any], given: Mapping[str, Any], forget_rows: int, processes: int) -> dict[str, Any]:
    """The default training arguments ``suited`` for each of several ``processes``, so that a step has the same rows.

    A batch size that the user has ``given`` stays what transformers says it is, the rows of one process; a step has
    ``processes`` times as many then.  A batch that is the whole forget set is shared as evenly as it can be.  Raises
    InputError where another default step does not divide.

    >>> suited = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    >>> divided(suited, {}, 400, 4)
    {'per_device_train_batch_size': 2, 'gradient_accumulation_steps': 2}
    >>> divided(suited, {}, 400, 16)
    {'per_device_train_batch_size': 1, 'gradient_accumulation_steps': 1}
    """
    if processes == 1 or ROWS in given:
        return dict(suited)
    rows, parts = suited[ROWS], suited[PARTS]
    if rows >= forget_rows:
        return {**suited, ROWS: -(-rows // processes)}
    free = PARTS not in given
    for fewer in range(parts, 0, -1) if free else [parts]:
        if parts % fewer == 0 and (rows * parts // fewer) % processes == 0:
            return {**suited, ROWS: rows * parts // fewer // processes, PARTS: fewer}
    step = rows * parts if free else rows
    fitting = ", ".join(str(n) for n in range(1, step + 1) if step % n == 0)
    raise InputError(
        f"{processes} processes cannot share {'a step' if free else 'a batch'} of {step} rows evenly: start as many as "
        f"divide it ({fitting}), or give {ROWS}, the rows of each"
    )
