"""What ``expunge plan`` takes besides a run's own settings."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt]i?b?|b?)", re.IGNORECASE)


def size(value: Any) -> Any:
    """An amount of memory in bytes: ``24GB`` (powers of 1000), ``80GiB`` (of 1024), or a number of bytes.

    >>> size("24GB"), size("1.5GiB"), size(100)
    (24000000000.0, 1610612736.0, 100.0)
    """
    if value is None:
        return None
    found = SIZE.fullmatch(str(value).strip())
    if isinstance(value, bool) or not found:
        raise PydanticCustomError("size", "write 24GB, 80GiB or a number of bytes")
    unit = found[2].lower()
    base = 1024 if "i" in unit else 1000
    return float(found[1]) * base ** ("kmgt".find(unit[:1]) + 1 if unit[:1] in ("k", "m", "g", "t") else 0)


class Plan(BaseModel):
    """How a run is estimated.

    ``memory``: of one card that is not here; a step is then planned as it runs on CUDA.  ``probe``: load the model, take a
    few steps, and measure.  ``rate``: floating-point operations a second of a large matrix product on the card, in
    TFLOP/s.  ``rows``, ``row_tokens`` and ``answer_tokens`` stand for data that is not here: so many rows of each set,
    all of that length, with so many labelled tokens.
    """

    model_config = ConfigDict(extra="forbid")
    memory: Annotated[float | None, BeforeValidator(size)] = Field(
        None,
        gt=0,
        description="Memory of one card, such as 24GB: plan for a CUDA card that is not in this machine.",
        json_schema_extra={"metavar": "SIZE"},
    )
    probe: bool = Field(False, description="Load the model, take a few steps, and measure seconds and peak memory.")
    rate: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="TFLOP/s of a large matrix product on the card: the least time of a step follows.",
        json_schema_extra={"metavar": "TFLOPS"},
    )
    rows: int = Field(400, ge=1, description="Without --forget: rows of each set.")
    row_tokens: int | None = Field(None, ge=2, description="Without --forget: tokens of each row.")
    answer_tokens: int | None = Field(None, ge=1, description="Without --forget: labelled tokens of each row.")
