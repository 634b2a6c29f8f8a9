"""How a recipe's values may be written: times, names of layers, regular expressions, rows in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

TIME = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smh]?)")  # how often a checkpoint is saved
LAYER = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")  # the name of a layer, or its end


def expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise PydanticCustomError("regex", "it is not a regular expression, {said}", {"said": str(error)}) from None
    return text


def seconds(value: Any) -> Any:
    """A time as seconds: ``90s``, ``5m``, ``2h``, or a number of seconds; ``never`` is None.

    >>> seconds("5m"), seconds("1.5h"), seconds("never"), seconds(30)
    (300.0, 5400.0, None, 30.0)
    """
    if value is None or str(value).strip().lower() == "never":
        return None
    found = TIME.fullmatch(str(value).strip().lower())
    if isinstance(value, bool) or not found:
        raise PydanticCustomError("time", "write 90s, 5m, 2h, or never")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2] or ""]


def modules(value: Any) -> Any:
    """Names of layers as a list, however they are written; "all-linear" and a regular expression as they are.

    >>> modules("q_proj,v_proj"), modules('["q_proj"]'), modules("q_proj"), modules(".*q_proj"), modules("all-linear")
    (['q_proj', 'v_proj'], ['q_proj'], ['q_proj'], '.*q_proj', 'all-linear')
    """
    if not isinstance(value, str) or value == "all-linear":
        return value
    names = [name.strip(" \"'") for name in re.sub(r"^\s*\[(.*)\]\s*$", r"\1", value).split(",")]
    return names if all(map(LAYER.fullmatch, names)) else expression(value)


def rows(value: Any) -> Any:
    """Rows in memory as they are read: texts as rows of text, a table of pandas' as its rows, an iterator as a list."""
    if hasattr(value, "read"):
        raise PydanticCustomError("rows", "it is an open file; give its name")
    if isinstance(value, list | tuple) and value and all(map(_is_file, value)):
        raise PydanticCustomError("rows", "they are names of files; give one file, or the folder that holds them")
    if isinstance(value, Mapping) and value and all(isinstance(v, str) for v in value.values()):
        raise PydanticCustomError("rows", "it is one row; put it into a list")
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict("records")
    if isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, list | tuple) and value and all(isinstance(row, str) for row in value):
        return [{"text": row} for row in value]
    return value


def _is_file(value: Any) -> bool:
    try:
        return isinstance(value, Path) or (isinstance(value, str) and len(value) < 4096 and Path(value).is_file())
    except (OSError, ValueError):  # a long text, say
        return False
