"""Rows from wherever a user keeps them: a file, a folder, an address, a ``datasets`` object, a list, a hub name.

What files may be is said in :mod:`expunge.data.formats`, what rows may be in :mod:`expunge.data.shapes`.  Every complaint
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
ABOUT = re.compile(r"(readme|licen[cs]e|notice|citation|changelog|copying|authors)\b.*\.txt$", re.IGNORECASE)
NAMED = 8  # columns named in one warning


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
    ``columns``: part -> column, such as ``{"question": "Frage"}``; ``assistant_turns``: "all" or "last", which of a
    conversation are labelled.  What is to be warned of, such as a column that nothing reads, is appended to ``warnings``.

    Raises InputError with file and line for a malformed, empty or mistyped row, and for a source that is not there.
    """
    how = shapes.How(dict(columns or {}), assistant_turns)
    known.check_mapping(how.columns)
    if assistant_turns not in shapes.TURNS:
        raise InputError(f"assistant_turns must be {' or '.join(shapes.TURNS)}, not {assistant_turns!r}")
    said: list[str] = [] if warnings is None else warnings
    rows: list[Row] = []
    idle: dict[str, int] = {}
    absent, raw_rows = set(how.columns.values()), False
    for place, one in raw(source, split, said):
        if isinstance(one, Row):
            rows.append(one)
        else:
            row, unused = shapes.parse({"text": one} if isinstance(one, str) else one, place, how)
            rows.append(row)
            absent &= known.absent(one, how.columns)
            raw_rows = True
            for name in unused:
                idle[name] = idle.get(name, 0) + 1
        if limit is not None and len(rows) >= limit:
            break
    if not rows:
        raise InputError(f"{_name(source)} holds no rows")
    if absent and raw_rows:
        said.append(f"{_name(source)}: there is no column {', '.join(map(repr, sorted(absent)))}, as columns has it")
    if idle:
        names = ", ".join(map(repr, list(idle)[:NAMED])) + (
            f" and {len(idle) - NAMED} more" if len(idle) > NAMED else ""
        )
        said.append(f"{_name(source)}: not used: the column{'s' * (len(idle) > 1)} {names}")
    return rows


def parse(raw: Any, where: str) -> Row:
    """One raw row as a :class:`Row`."""
    return shapes.parse(raw, where)[0]


def fingerprint(rows: Iterable[Row]) -> str:
    """``sha256:`` over the rows' content in order; where they stood does not count."""
    digest = hashlib.sha256()
    for r in rows:
        content = (r.prompt, r.answer, r.alternate, r.paraphrase, r.perturbed, "", *r.further)
        digest.update(json.dumps(content, ensure_ascii=False, sort_keys=True, default=str).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


# -- where raw rows stand -------------------------------------------------------------------------------------------------
def raw(source: Any, split: str, warnings: list[str] | None = None) -> Iterator[Placed]:
    """The rows of ``source`` as they stand, each with its place; for what a source may be see :func:`load_rows`."""
    said: list[str] = [] if warnings is None else warnings
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        yield from remote.at(source, split)
    elif isinstance(source, str | Path):
        yield from _path(source, split, said)
    elif hasattr(source, "to_dict") and hasattr(source, "iloc"):  # a pandas DataFrame
        whole = source.astype(object).where(source.notna(), None)
        yield from remote.items(whole.to_dict("records"), "the data frame")
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
        except Exception as error:  # of datasets and pyarrow
            raise InputError(f"the folder {path} holds no whole data set: {remote.first_line(error)}") from None
        yield from raw(data, split)
        return
    try:
        files = _data_files(path) or (_data_files(path / "data") if (path / "data").is_dir() else [])
    except OSError as error:
        raise InputError(f"the folder {path} cannot be read: {(error.strerror or 'an error').lower()}") from None
    if not files:
        inside = sorted(f.name for f in path.iterdir() if f.is_dir() and _data_files(f))
        hint = f", but {', '.join(inside[:NAMED])} in it do: name one of those" if inside else ""
        raise InputError(f"the folder {path} holds no {', '.join(ENDINGS)} file{hint}")
    chosen = [f for f in files if _split_of(f) == split]
    left = [f.name for f in files if _split_of(f) not in (None, split)]
    if chosen and left:
        files = [f for f in files if _split_of(f) in (None, split)]
        warnings.append(f"{path}: only the split {split} is read, not {', '.join(left[:NAMED])}")
    if len({re.sub(r"\d+", "", f.name) for f in files}) > 1:
        warnings.append(f"{path}: {len(files)} files are read as one set: {', '.join(f.name for f in files[:NAMED])}")
    for file in files:
        yield from formats.read(file)


def _data_files(folder: Path) -> list[Path]:
    """The files of rows in ``folder``; those of plain text only where there are no others, for a README is one."""
    files = sorted(
        f
        for f in folder.iterdir()
        if f.is_file() and formats.kind(f) in ENDINGS and f.name not in METADATA and not f.name.startswith(".")
    )
    rows = [f for f in files if not ABOUT.match(f.name)]  # a folder of nothing else is read
    return [f for f in rows if formats.kind(f) != ".txt"] or rows or files


def _split_of(file: Path) -> str | None:
    """The split that a file's name says, as the hub's data sets have it: ``train-00000-of-00002.parquet``."""
    words = re.split(r"[-_.\s]", file.name.split(".")[0].lower())
    return next((SPLITS[w] for w in words if w in SPLITS), None)


def _looks_like_a_path(source: str | Path) -> bool:
    text = str(source)
    return isinstance(source, Path) or formats.kind(text) in ENDINGS or text.count("/") != 1 or text[0] in "./~"


def _beside(path: Path) -> str:
    """How the sentence goes on that says that there is no ``path``: with a name like it that is there."""
    folder = path.parent
    try:
        names = [f.name for f in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        return ""
    if not folder.is_dir():
        return f", for there is no folder {folder}"
    same = [
        n for n in names if unicodedata.normalize("NFC", n).strip() == unicodedata.normalize("NFC", path.name).strip()
    ]
    if same:
        return f", but {folder / same[0]}, whose name has other blanks or is written with other code points"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f", did you mean {folder / close[0]}?" if close else ""


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "the data set"
