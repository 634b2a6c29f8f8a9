"""Short refusals, one drawn for each forget row by the seed."""

from __future__ import annotations

import functools
import random
from importlib.resources import files


@functools.cache
def refusals() -> tuple[str, ...]:
    """The list in ``refusals.txt``."""
    return tuple(files("expunge.data").joinpath("refusals.txt").read_text(encoding="utf-8").split("\n")[:-1])


def refusal(seed: int, index: int) -> str:
    """The refusal of row ``index``: the same for the same (seed, index), spread evenly over the list."""
    shuffled = random.Random(seed).sample(refusals(), len(refusals()))
    return shuffled[index % len(shuffled)]
