"""Rows of any columns, for a benchmark whose rows are not question and answer: choices, levels, ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.data import plain
from expunge.data.sources import raw
from expunge.errors import InputError


@dataclass(frozen=True)
class Record:
    """One raw row; ``where``: its place for messages, such as ``bio.json, row 12``.

    The readers raise InputError, with the place, for a column that is missing or of another kind.
    """

    values: Mapping[str, Any]
    where: str

    @property
    def file(self) -> str:
        """The file or data set it came from."""
        return self.where.split(",")[0]

    def text(self, name: str) -> str:
        """A text that is not empty."""
        value = self._get(name)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{self.where}: the field {name!r} must be text that is not empty")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._get(name)
        value = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise InputError(f"{self.where}: the field {name!r} must be a list of texts")
        return tuple(value)

    def number(self, name: str) -> int:
        """A whole number; a file of texts may write it as one."""
        value = self._get(name)
        try:
            if isinstance(value, bool) or int(value) != float(value):
                raise ValueError
            return int(value)
        except (TypeError, ValueError):
            raise InputError(f"{self.where}: the field {name!r} must be a whole number") from None

    def _get(self, name: str) -> Any:
        if self.values.get(name) is None:
            raise InputError(f"{self.where}: the field {name!r} is missing")
        return self.values[name]


def load_records(source: Any, *, split: str = "train") -> list[Record]:
    """The records of ``source``, any that :func:`expunge.data.sources.load_rows` or :mod:`expunge.data.plain` reads."""
    out = []
    reader = plain.reader(source)
    for where, values in reader(Path(source)) if reader else raw(source, split):
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: a row must be an object with named fields, this is a {type(values).__name__}")
        out.append(Record(values, where))
    if not out:
        raise InputError(f"{source} holds no rows")
    return out
