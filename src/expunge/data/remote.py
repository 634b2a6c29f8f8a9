"""Rows from elsewhere: a data set of the Hub, a file at an https address."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from expunge.data import formats
from expunge.data.formats import Placed
from expunge.errors import InputError


def items(source: Iterable[Any], name: str) -> Iterator[Placed]:
    """The rows of ``source``, each with its place in what is called ``name``."""
    for i, row in enumerate(source, 1):
        yield f"{name}, row {i}", row


def hub(name: str, split: str) -> Iterator[Placed]:
    """The rows of ``owner/name``, with ``:config`` and ``@split`` if need be."""
    from datasets import load_dataset

    name, _, named_split = name.partition("@")
    repository, _, config = name.partition(":")
    try:
        data = load_dataset(repository, config or None, split=named_split or split)
    except Exception as error:  # the hub client has many; each is told in one sentence
        raise InputError(
            f"the data set {name!r} is no file here and could not be had from the hub: {first_line(error)}"
        ) from error
    yield from items(data, name)


def at(address: str, split: str) -> Iterator[Placed]:
    """The rows of the file at ``address``, or of the data set whose page on the Hub it is."""
    from datasets import load_dataset

    if page := re.fullmatch(r"https?://huggingface\.co/datasets/([\w.-]+/[\w.-]+)/?", address):
        yield from hub(page[1], split)
        return
    place = address.split("?")[0].split("#")[0]
    kinds = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
    kind = kinds.get(formats.kind(place))
    if kind is None:
        raise InputError(f"{address} is of no known kind; rows at an address come as {', '.join(kinds)}")
    try:
        data = load_dataset(kind, data_files=address, split="train")
    except Exception as error:
        raise InputError(f"{address} could not be had: {first_line(error)}") from error
    yield from items(data, Path(place).name)


def first_line(error: Exception) -> str:
    """An error's first line, or its kind where it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
