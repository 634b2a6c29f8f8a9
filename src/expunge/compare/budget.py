"""What a run may spend: optimizer steps, and rows of each stream in one.  A comparison's runs all spend the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.bench.run import Ready
from expunge.errors import InputError
from expunge.training.arguments import total_steps
from expunge.unlearning import train


@dataclass(frozen=True)
class Budget:
    """``steps`` optimizer steps of ``rows`` rows of each stream."""

    steps: int
    rows: int

    def __str__(self) -> str:
        return f"{self.steps} steps of {self.rows} rows"


def of(it: Ready) -> Budget:
    """What a run that is ready will spend."""
    assert it.plan and it.method
    return counted(
        train.training_arguments(it.plan, it.method, len(it.rows["forget"]), it.folder), len(it.rows["forget"])
    )


def counted(args: Any, n: int) -> Budget:
    """The steps and rows of ``TrainingArguments`` on ``n`` forget rows: ``max_steps``, or as many as the epochs have.

    >>> from types import SimpleNamespace as Args
    >>> of = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 3.0}
    >>> of |= {"train_batch_size": 4, "world_size": 1}
    >>> str(counted(Args(max_steps=-1, **of), 20)), str(counted(Args(max_steps=5, **of), 20))
    ('9 steps of 8 rows', '5 steps of 8 rows')
    """
    return Budget(total_steps(args, n), args.per_device_train_batch_size * args.gradient_accumulation_steps)


def equal(budgets: Mapping[str, Budget]) -> Budget:
    """The one budget of all runs; InputError where they differ."""
    (first, one), *rest = budgets.items()
    for name, other in rest:
        if other != one:
            raise InputError(
                f"the budgets are not equal: {first} takes {one}, {name} {other}; give every method the same max_steps and "
                "batch size"
            )
    return one
