"""Tables: CSV with commas, semicolons, tabs or bars, and Excel's .xlsx."""

from __future__ import annotations

import csv
import datetime
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from expunge.data.columns import ANSWER, EXTRAS, MESSAGES, PARTS, QUESTION, TEXT, normal
from expunge.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
USUAL = frozenset([*PARTS, *QUESTION, *ANSWER, *TEXT, *MESSAGES, *EXTRAS])


def separated(file: IO[str], name: str, *, tab: bool = False) -> Iterator[tuple[str, Any]]:
    """The rows of CSV with a header, each with its line; a cell may be of any size."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # 131,072 characters otherwise
    header = file.readline()
    file.seek(0)
    if header.startswith("sep=") and len(header.strip()) == 5:  # Excel's declaration of the separator
        separator = file.readline().strip()[4]
    else:
        separator = "\t" if tab else _separator(header)
    table = csv.DictReader(file, delimiter=separator)
    try:
        _check_unique(table.fieldnames or (), name)
        for row in table:
            where = f"{name}, line {table.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: {'more' if None in row else 'fewer'} fields than the header has")
            yield where, row
    except csv.Error as error:
        raise InputError(f"{name}, line {table.line_num}: not CSV ({error})") from None


def _check_unique(names: Sequence[str], file: str) -> None:
    duplicate = next((n for i, n in enumerate(names) if n and n in names[:i]), None)
    if duplicate is not None:
        raise InputError(f"{file}: two columns are called {duplicate[:40]!r}; rename one of them")


def _separator(header: str) -> str:
    """The separator that gives the most known column names, else the most names; a comma where all are equal.

    >>> _separator("Question;Answer, short"), _separator("Frage;Antwort"), _separator("text")
    (';', ';', ',')
    """

    def score(separator: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=separator), [])
        return sum(normal(n) in USUAL for n in names), len(names)

    return max(SEPARATORS, key=score)


def workbook(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of the first sheet under its first row; numbers and dates as text.  Needs the package openpyxl."""
    try:
        import openpyxl
    except ImportError:
        raise InputError(
            f"{path.name} needs the package openpyxl: pip install 'expunge[xlsx]', or save it as CSV"
        ) from None
    try:
        rows = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True)
        header = [str(n).strip() if n is not None else "" for n in next(rows, ())]
        cells = [list(row) for row in rows]
        _check_unique(header, path.name)
    except InputError:
        raise
    except Exception as error:  # zip files and XML are broken in many ways
        raise InputError(f"{path.name} is not an Excel workbook, or is broken ({type(error).__name__})") from None
    for i, row in enumerate(cells, 2):
        if any(value is not None for value in row):
            yield f"{path.name}, row {i}", {n: _cell(v) for n, v in zip(header, row, strict=False) if n}


def _cell(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return value if value is None or isinstance(value, str) else str(value)
