"""Rows of any source: a file, a folder, an address, a ``datasets`` object, a list, a hub name.

File formats are in :mod:`expunge.data.formats`, formats of rows in :mod:`expunge.data.shapes`.  Every message
names the file and the line, never the text.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge import files
from expunge.data import columns as known
from expunge.data import formats, remote, shapes
from expunge.data.example import Row
from expunge.data.formats import ENDINGS, Placed
from expunge.errors import InputError

SPLITS = {"train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation"}
SPLITS |= {"val": "validation", "dev": "validation", "eval": "validation"}
METADATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
DOCUMENTS = re.compile(r"(readme|licen[cs]e|notice|citation|changelog|copying|authors)\b.*\.txt$", re.IGNORECASE)
MAX_NAMED = 8  # names in one warning


def load_rows(
    source: Any,
    *,
    split: str = "train",
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    assistant_turns: str = "all",
    warnings: list[str] | None = None,
) -> list[Row]:
    """The rows of ``source``, validated.

    ``source``: a path to a file (:data:`~expunge.data.formats.ENDINGS`, text also packed as .gz, .bz2 or .xz); a folder of
    such files or of ``save_to_disk``; the https address of one; a ``datasets.Dataset``, a pandas DataFrame; a list of
    dicts, of texts or of :class:`Row`; a hub name ``owner/name``, with ``:config`` and ``@split`` if need be.
    ``columns``: role -> column, such as ``{"question": "Frage"}``; ``assistant_turns``: "all" or "last", which of a
    conversation are labelled.  Warnings, such as of an unused column, are appended to ``warnings``.

    Raises InputError with file and line for a malformed, empty or mistyped row, and for a missing source.
    """
    options = shapes.ReadOptions(dict(columns or {}), assistant_turns)
    known.check_mapping(options.columns)
    if assistant_turns not in shapes.TURNS:
        raise InputError(f"assistant_turns must be {' or '.join(shapes.TURNS)}, not {assistant_turns!r}")
    messages: list[str] = [] if warnings is None else warnings
    rows: list[Row] = []
    unused_counts: dict[str, int] = {}
    absent, raw_rows = set(options.columns.values()), False
    for place, raw_row in raw(source, split, messages):
        if isinstance(raw_row, Row):
            rows.append(raw_row)
        else:
            row, unused = shapes.parse({"text": raw_row} if isinstance(raw_row, str) else raw_row, place, options)
            rows.append(row)
            absent &= known.absent(raw_row, options.columns)
            raw_rows = True
            for name in unused:
                unused_counts[name] = unused_counts.get(name, 0) + 1
        if limit is not None and len(rows) >= limit:
            break
    if not rows:
        raise InputError(f"{_name(source)} holds no rows")
    if absent and raw_rows:
        messages.append(
            f"{_name(source)}: there is no column {', '.join(map(repr, sorted(absent)))}, as columns has it"
        )
    if unused_counts:
        names = ", ".join(map(repr, list(unused_counts)[:MAX_NAMED])) + (
            f" and {len(unused_counts) - MAX_NAMED} more" if len(unused_counts) > MAX_NAMED else ""
        )
        messages.append(f"{_name(source)}: not used: the column{'s' * (len(unused_counts) > 1)} {names}")
    return rows


def parse(raw: Any, where: str) -> Row:
    """One raw row as a :class:`Row`."""
    return shapes.parse(raw, where)[0]


def fingerprint(rows: Iterable[Row]) -> str:
    """``sha256:`` over the rows' content in order; their places do not count."""
    digest = hashlib.sha256()
    for r in rows:
        content = (r.prompt, r.answer, r.alternate, r.paraphrase, r.perturbed, "", *r.further)
        digest.update(json.dumps(content, ensure_ascii=False, sort_keys=True, default=str).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


# -- raw rows -------------------------------------------------------------------------------------------------------------
def raw(source: Any, split: str, warnings: list[str] | None = None) -> Iterator[Placed]:
    """The raw rows of ``source``, each with its place; for what a source may be see :func:`load_rows`."""
    messages: list[str] = [] if warnings is None else warnings
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        yield from remote.from_address(source, split)
    elif isinstance(source, str | Path):
        yield from _path(source, split, messages)
    elif hasattr(source, "to_dict") and hasattr(source, "iloc"):  # a pandas DataFrame
        frame = source.astype(object).where(source.notna(), None)
        yield from remote.items(frame.to_dict("records"), "the data frame")
    elif isinstance(source, Mapping) and split in source:  # a datasets.DatasetDict
        yield from remote.items(source[split], f"split {split}")
    elif isinstance(source, Mapping) and all(isinstance(v, list | tuple) for v in source.values()) and source:
        yield from remote.items(formats.listed({k: list(v) for k, v in source.items()}), "the data set")
    elif isinstance(source, Mapping):
        raise InputError(f"the data set has no split {split!r}; it has {', '.join(map(str, source)) or 'nothing'}")
    elif isinstance(source, Iterable) and not isinstance(source, bytes):
        yield from remote.items(source, "the data set")
    else:
        raise InputError(f"rows cannot come from a {type(source).__name__}; give a path, a data set or a list")


def _path(source: str | Path, split: str, warnings: list[str]) -> Iterator[Placed]:
    if not str(source).strip() or source == Path():
        raise InputError("the name of a data set is empty; give a file, a folder or a hub name")
    path = files.expanded(source)
    try:
        is_folder, is_file, is_there = path.is_dir(), path.is_file(), os.path.lexists(path)
    except (OSError, RuntimeError, ValueError):
        raise InputError(f"{str(source)[:60]!r}… is no name of a file; give a file, a folder or a hub name") from None
    if is_folder:
        yield from _folder(path, split, warnings)
    elif is_file:
        yield from formats.read(path)
    elif path.is_symlink():
        raise InputError(f"{path} is a link to {os.readlink(path)}, which is not there")
    elif is_there:
        raise InputError(f"{path} is neither a file nor a folder (a pipe, say); write the rows to a file first")
    elif _looks_like_a_path(source):
        raise InputError(f"there is no file {path}{_beside(path)}")
    else:
        yield from remote.hub(str(source), split)


def _folder(path: Path, split: str, warnings: list[str]) -> Iterator[Placed]:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        from datasets import load_from_disk

        try:
            data = load_from_disk(str(path))
        except Exception as error:  # raised by datasets and pyarrow
            raise InputError(f"the folder {path} holds no whole data set: {remote.first_line(error)}") from None
        yield from raw(data, split)
        return
    try:
        files = _data_files(path) or (_data_files(path / "data") if (path / "data").is_dir() else [])
    except OSError as error:
        raise InputError(f"the folder {path} cannot be read: {(error.strerror or 'an error').lower()}") from None
    if not files:
        subfolders = sorted(f.name for f in path.iterdir() if f.is_dir() and _data_files(f))
        hint = f", but {', '.join(subfolders[:MAX_NAMED])} in it do: name one of those" if subfolders else ""
        raise InputError(f"the folder {path} holds no {', '.join(ENDINGS)} file{hint}")
    of_split = [f for f in files if _split_of(f) == split]
    other_splits = [f.name for f in files if _split_of(f) not in (None, split)]
    if of_split and other_splits:
        files = [f for f in files if _split_of(f) in (None, split)]
        warnings.append(f"{path}: only the split {split} is read, not {', '.join(other_splits[:MAX_NAMED])}")
    if len({re.sub(r"\d+", "", f.name) for f in files}) > 1:
        warnings.append(
            f"{path}: {len(files)} files are read as one set: {', '.join(f.name for f in files[:MAX_NAMED])}"
        )
    for file in files:
        yield from formats.read(file)


def _data_files(folder: Path) -> list[Path]:
    """The files of rows in ``folder``; those of plain text only where there are no others, since a README is plain text."""
    files = sorted(
        f
        for f in folder.iterdir()
        if f.is_file() and formats.kind(f) in ENDINGS and f.name not in METADATA and not f.name.startswith(".")
    )
    rows = [f for f in files if not DOCUMENTS.match(f.name)]  # a folder of nothing else is read
    return [f for f in rows if formats.kind(f) != ".txt"] or rows or files


def _split_of(file: Path) -> str | None:
    """The split in a file's name, as the hub's data sets have it: ``train-00000-of-00002.parquet``."""
    words = re.split(r"[-_.\s]", file.name.split(".")[0].lower())
    return next((SPLITS[w] for w in words if w in SPLITS), None)


def _looks_like_a_path(source: str | Path) -> bool:
    text = str(source)
    return isinstance(source, Path) or formats.kind(text) in ENDINGS or text.count("/") != 1 or text[0] in "./~"


def _beside(path: Path) -> str:
    """The end of the message that there is no ``path``: a similar name that exists, if any."""
    folder = path.parent
    try:
        names = [f.name for f in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        return ""
    if not folder.is_dir():
        return f", for there is no folder {folder}"
    equivalent = [
        n for n in names if unicodedata.normalize("NFC", n).strip() == unicodedata.normalize("NFC", path.name).strip()
    ]
    if equivalent:
        return f", but {folder / equivalent[0]}, whose name has other blanks or is written with other code points"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f", did you mean {folder / close[0]}?" if close else ""


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "the data set"
