"""Rows from wherever a user keeps them: JSONL, JSON, CSV, Parquet, a folder, a ``datasets`` object, a hub name.

A row is ``question/answer``, ``prompt/completion`` (or ``input/output``), ``messages`` or ``text``; other columns are
ignored, unless one looks like a misspelt known column.  Every complaint names the file and the line, never the text.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from expunge.data.example import Message, Row
from expunge.errors import InputError

KINDS = (("question", "answer"), ("prompt", "completion"), ("input", "output"), ("messages",), ("text",))
OPTIONAL = ("alternate", "paraphrased_answer", "perturbed_answer", "paraphrased_question")
KNOWN = tuple(dict.fromkeys([name for kind in KINDS for name in kind] + list(OPTIONAL)))
ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
ROLES = ("system", "user", "assistant", "tool")
Placed = tuple[str, Any]  # (place to name, raw row)


def load_rows(source: Any, *, split: str = "train", limit: int | None = None) -> list[Row]:
    """The rows of ``source``, validated.

    ``source``: a path to .jsonl, .json (an array, one object a line, or ``{"data": […]}``), .csv or .parquet; a folder of
    such files or of ``save_to_disk``; the https address of one; a ``datasets.Dataset``; a list of dicts or of
    :class:`Row`; a hub name ``owner/name``, with ``:config`` and ``@split`` if need be.

    Raises InputError with file and line for a malformed, empty or mistyped row, and for a source that is not there.
    """
    rows = [r if isinstance(r, Row) else parse(r, place) for place, r in raw(source, split)]
    if not rows:
        raise InputError(f"{_name(source)} holds no rows")
    return rows[:limit]


def fingerprint(rows: Iterable[Row]) -> str:
    """``sha256:`` over the rows' content in order; where they stood does not count."""
    digest = hashlib.sha256()
    for row in rows:
        content = astuple(replace(row, where=""))
        digest.update(json.dumps(content, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


# -- one row --------------------------------------------------------------------------------------------------------------
def parse(raw: Any, where: str) -> Row:
    """One raw row as a :class:`Row`."""
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: a row must be an object with named fields, this is a {type(raw).__name__}")
    given = {k: v for k, v in raw.items() if v is not None}
    kind = next((k for k in KINDS if all(name in given for name in k)), None)
    for name in raw:
        if (
            name not in KNOWN
            and (close := difflib.get_close_matches(str(name), KNOWN, n=1, cutoff=0.8))
            and close[0] not in raw
        ):
            raise InputError(f"{where}: unknown column {name!r}, did you mean {close[0]!r}?")
    if kind is None:
        found = ", ".join(map(repr, raw)) or "none"
        partly = next((k for k in KINDS if any(name in raw for name in k)), None)
        if partly:
            missing = next(name for name in partly if name not in given)
            raise InputError(f"{where}: the field {missing!r} is missing; a row has {' and '.join(partly)}")
        raise InputError(
            f"{where}: no known columns (found {found}); a row is question/answer, prompt/completion, messages or text"
        )
    extras: dict[str, Any] = {
        "alternate": _optional(given, "alternate", where),
        "paraphrase": _optional(given, "paraphrased_answer", where),
        "perturbed": _perturbed(given.get("perturbed_answer"), where),
    }
    if kind == ("messages",):
        messages = _messages(given["messages"], where, "messages")
        return _conversation(messages[:-1], messages[-1:], where, extras)
    if kind == ("text",):
        return Row(None, _text(given, "text", where), where=where, **extras)
    first, second = kind[0], kind[-1]
    if isinstance(given[first], Sequence) and not isinstance(given[first], str):
        before = _messages(given[first], where, first)
        return _conversation(before, _messages(given[second], where, second), where, extras)
    prompt = _text(given, first, where)
    answer = _text(given, second, where)
    if kind == ("question", "answer"):
        return Row(({"role": "user", "content": prompt},), answer, where=where, **extras)
    return Row(prompt, answer, where=where, **extras)


def _conversation(before: Sequence[Message], last: Sequence[Message], where: str, extras: dict[str, Any]) -> Row:
    if len(last) != 1 or last[0]["role"] != "assistant":
        raise InputError(f"{where}: the last message must be the assistant's, for it is the answer")
    if not before:
        raise InputError(f"{where}: there is no message before the assistant's answer")
    return Row(tuple(before), last[0]["content"], where=where, **extras)


def _messages(value: Any, where: str, name: str) -> list[Message]:
    value = _from_json(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError(f"{where}: {name!r} must be a list of messages")
    out = []
    for m in value:
        if not isinstance(m, Mapping) or not isinstance(m.get("content"), str) or not m["content"].strip():
            raise InputError(f"{where}: a message in {name!r} needs a role and a content that is not empty")
        if m.get("role") not in ROLES:
            raise InputError(f"{where}: the role {m.get('role')!r} in {name!r} is not one of {', '.join(ROLES)}")
        out.append({"role": m["role"], "content": m["content"]})
    return out


def _text(raw: Mapping[str, Any], name: str, where: str) -> str:
    value = raw[name]
    if not isinstance(value, str):
        raise InputError(f"{where}: the field {name!r} must be text, it is a {type(value).__name__}")
    if not value.strip():
        raise InputError(f"{where}: the field {name!r} is empty")
    return value


def _optional(raw: Mapping[str, Any], name: str, where: str) -> str | None:
    return _text(raw, name, where) if raw.get(name) not in (None, "") else None


def _perturbed(value: Any, where: str) -> tuple[str, ...]:
    value = _from_json(value)
    if value is None or value == "":
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(v, str) and v.strip() for v in items):
        raise InputError(f"{where}: 'perturbed_answer' must be a list of texts")
    return tuple(items)


def _from_json(value: Any) -> Any:
    """A list that a CSV cell holds as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value.tolist() if hasattr(value, "tolist") else value


# -- where raw rows stand -------------------------------------------------------------------------------------------------
def raw(source: Any, split: str) -> Iterator[Placed]:
    """The rows of ``source`` as they stand, each with its place; for what a source may be see :func:`load_rows`."""
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        yield from _url(source)
    elif isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_dir():
            yield from _folder(path, split)
        elif path.is_file():
            yield from _file(path)
        elif _looks_like_a_path(source):
            raise InputError(f"there is no file {path}{_beside(path)}")
        else:
            yield from _hub(str(source), split)
    elif isinstance(source, Mapping) and split in source:  # a datasets.DatasetDict
        yield from _items(source[split], f"split {split}")
    elif isinstance(source, Mapping):
        raise InputError(f"the data set has no split {split!r}; it has {', '.join(map(str, source))}")
    elif isinstance(source, Iterable):
        yield from _items(source, "the data set")
    else:
        raise InputError(f"rows cannot come from a {type(source).__name__}; give a path, a data set or a list")


def _items(source: Iterable[Any], name: str) -> Iterator[Placed]:
    for i, row in enumerate(source, 1):
        yield f"{name}, row {i}", row


def _file(path: Path) -> Iterator[Placed]:
    read = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path.name} is of no known kind; rows come as {', '.join(ENDINGS)}")
    try:
        yield from read(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _jsonl(path: Path) -> Iterator[Placed]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield f"{path.name}, line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                reason = f"not JSON ({error.msg} at column {error.colno})"
                raise InputError(f"{path.name}, line {number}: {reason}; each line must be one object") from None


def _json(path: Path) -> Iterator[Placed]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if (
            text.lstrip().startswith("{") and "\n" in text.strip()
        ):  # one object a line under a .json name, as TOFU has it
            yield from _jsonl(path)
            return
        raise InputError(f"{path.name}, line {error.lineno}: not JSON ({error.msg})") from None
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    yield from _items(value if isinstance(value, list) else [value], path.name)


def _csv(path: Path) -> Iterator[Placed]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        for row in table:
            where = f"{path.name}, line {table.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: {'more' if None in row else 'fewer'} fields than the header has")
            yield where, row


def _parquet(path: Path) -> Iterator[Placed]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        table = pq.read_table(path)
    except ArrowException:
        raise InputError(f"{path.name} is not a Parquet file") from None
    yield from _items(table.to_pylist(), path.name)


def _folder(path: Path, split: str) -> Iterator[Placed]:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        from datasets import load_from_disk

        yield from raw(load_from_disk(str(path)), split)
        return
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in ENDINGS)
    if not files:
        raise InputError(f"the folder {path} holds no {', '.join(ENDINGS)} file")
    for file in files:
        yield from _file(file)


def _hub(name: str, split: str) -> Iterator[Placed]:
    from datasets import load_dataset

    name, _, named_split = name.partition("@")
    repository, _, config = name.partition(":")
    try:
        data = load_dataset(repository, config or None, split=named_split or split)
    except Exception as error:  # the hub client has many; each is told in one sentence
        raise InputError(
            f"the data set {name!r} is no file here and could not be had from the hub: {_first_line(error)}"
        ) from error
    yield from _items(data, name)


def _url(address: str) -> Iterator[Placed]:
    from datasets import load_dataset

    kind = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}.get(Path(address).suffix.lower())
    if kind is None:
        raise InputError(f"{address} is of no known kind; rows come as {', '.join(ENDINGS)}")
    try:
        data = load_dataset(kind, data_files=address, split="train")
    except Exception as error:
        raise InputError(f"{address} could not be had: {_first_line(error)}") from error
    yield from _items(data, Path(address).name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _looks_like_a_path(source: str | Path) -> bool:
    text = str(source)
    return isinstance(source, Path) or Path(text).suffix.lower() in ENDINGS or text.count("/") != 1 or text[0] in "./~"


def _beside(path: Path) -> str:
    folder = path.parent
    names = [f.name for f in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f", did you mean {folder / close[0]}?" if close else ""


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "the data set"
