"""Files of rows: JSONL, JSON, CSV, TSV, plain text, Parquet, Arrow, Excel; text may be packed with gzip, bz2 or xz.

A ``.txt`` file is read as ``datasets`` reads it: each line that is not empty is a row of plain text.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from expunge.data import tables
from expunge.errors import InputError

Placed = tuple[str, Any]  # (place for messages, raw row)
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
PACKS = ((b"\x1f\x8b", ".gz"), (b"BZh", ".bz2"), (b"\xfd7zXZ\x00", ".xz"))
MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
LISTS = ("data", "rows", "train", "examples", "records", "items", "instances")  # keys that hold the rows


def kind(path: Path | str) -> str:
    """The suffix that names a file's format: ``.jsonl`` of ``rows.jsonl.gz``."""
    suffixes = [s.lower() for s in Path(path).suffixes[-2:]]
    return suffixes[-2] if len(suffixes) == 2 and suffixes[-1] in PACKED else (suffixes or [""])[-1]


def read(path: Path) -> Iterator[Placed]:
    """The rows of one file, each with its place.

    Raises InputError for an unknown ending, a file that cannot be read or unpacked, and malformed text,
    with the line.
    """
    reader = READERS.get(kind(path))
    if reader is None:
        raise InputError(f"{path.name} is of no known kind; rows come as {', '.join(ENDINGS)}")
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
        raise InputError(f"{path.name} is no whole {path.suffix.lstrip('.')} file; pack it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error) or 'an error').lower()}") from None


@contextmanager
def opened(path: Path, *, newline: str | None = None) -> Iterator[IO[str]]:
    """The text of a file, unpacked: UTF-8, or the encoding of its byte order mark."""
    with (_unpacks(path) or open)(path, "rb") as file:
        head = file.read(4)
        encoding = next((name for mark, name in MARKS if head.startswith(mark)), "utf-8-sig")
        if encoding == "utf-8-sig" and b"\0" in head and head.strip(b"\0"):
            raise InputError(f"{path.name} looks like UTF-16 without a mark; save it as UTF-8")
        file.seek(0)
        with io.TextIOWrapper(file, encoding=encoding, newline=newline) as text:
            yield text


def _unpacks(path: Path) -> Callable[..., Any] | None:
    """The decompressing ``open`` for a file, by its ending or else by its first bytes; None if it is not compressed."""
    with open(path, "rb") as file:
        head = file.read(6)
    suffix = next((name for mark, name in PACKS if head.startswith(mark)), "")
    return PACKED.get(path.suffix.lower()) or PACKED.get(suffix)


# -- JSON -----------------------------------------------------------------------------------------------------------------
def _jsonl(path: Path) -> Iterator[Placed]:
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if number == 1 and line.lstrip().startswith("[") and (rows := _one_list(path)) is not None:
                yield from ((f"{path.name}, row {i}", row) for i, row in enumerate(rows, 1))
                return
            if line.strip():
                where = f"{path.name}, line {number}"
                yield where, _parsed(line.strip(), where, "; each line must be one object")


def _one_list(path: Path) -> list[Any] | None:
    """The rows of a file that is one JSON list of objects, although its name ends in .jsonl."""
    with opened(path) as file:
        try:
            value = json.load(file)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) and value and all(isinstance(row, dict) for row in value) else None


def _parsed(text: str, where: str, hint: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise InputError(f"{where}: not JSON ({error.msg} at {position}){hint}") from None
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deeply to be read; a row is an object with named fields") from None
    except ValueError:
        raise InputError(f"{where}: JSON with a number of too many digits; write it as text") from None


def _json(path: Path) -> Iterator[Placed]:
    with opened(path) as file:
        text = file.read()
    if not text.strip():
        raise InputError(f"{path.name} is empty")
    try:
        value = _parsed(text, f"{path.name}, line 1")
    except InputError:
        if (
            text.lstrip().startswith("{") and "\n" in text.strip()
        ):  # one object a line under a .json name, as TOFU has it
            yield from _jsonl(path)
            return
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{path.name}, line {error.lineno}: not JSON ({error.msg})") from None
        except (RecursionError, ValueError):
            pass
        raise
    for i, row in enumerate(listed(value), 1):
        yield f"{path.name}, row {i}", row


def listed(value: Any) -> list[Any]:
    """The rows of a JSON value: a list, an object that holds one, an object of columns, or one row.

    >>> listed({"version": 1, "data": [{"text": "a"}]}), listed({"text": ["a", "b"]}), listed({"text": "a"})
    ([{'text': 'a'}], [{'text': 'a'}, {'text': 'b'}], [{'text': 'a'}])
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return [value]
    lists = [v for k, v in value.items() if k in LISTS and isinstance(v, list)]
    lists += [v for v in value.values() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
    if lists and not {"messages", "conversations"} & set(value):
        return lists[0]
    columns = list(value.values())
    if columns and all(isinstance(c, dict) and all(k.isdigit() for k in c) for c in columns):  # as pandas writes it
        columns = [list(c.values()) for c in columns]
    if not columns or not all(isinstance(c, list) for c in columns) or len(set(map(len, columns))) != 1:
        return [value]
    if {"messages", "conversations"} & set(value) and not all(isinstance(r, list) for c in columns for r in c):
        return [value]
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


# -- text and binary ------------------------------------------------------------------------------------------------------
def _txt(path: Path) -> Iterator[Placed]:
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path.name}, line {number}", {"text": line.rstrip("\n")}


def _csv(path: Path) -> Iterator[Placed]:
    with opened(path, newline="") as file:
        yield from tables.separated(file, path.name, tab=kind(path) == ".tsv")


def _parquet(path: Path) -> Iterator[Placed]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        rows = pq.read_table(path).to_pylist()
    except (ArrowException, OSError):
        raise InputError(f"{path.name} is not a Parquet file, or is broken") from None
    for i, row in enumerate(rows, 1):
        if not (len(row) == 1 and row.get("text") == ""):  # the blank lines of a text, as WikiText has them
            yield f"{path.name}, row {i}", row


def _arrow(path: Path) -> Iterator[Placed]:
    import datasets
    from pyarrow import ArrowException

    try:
        data = datasets.Dataset.from_file(str(path))
    except (ArrowException, OSError):
        raise InputError(f"{path.name} is not an Arrow file of datasets, or is broken") from None
    for i, row in enumerate(data, 1):
        yield f"{path.name}, row {i}", row


READERS: dict[str, Callable[[Path], Iterator[Placed]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _txt,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".xlsx": tables.workbook,
}
ENDINGS = tuple(READERS)
