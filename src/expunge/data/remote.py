"""Remote rows: a data set of the Hub, a file at an https address."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from expunge.data import formats
from expunge.data.formats import Placed
from expunge.errors import InputError


def items(source: Iterable[Any], name: str) -> Iterator[Placed]:
    """The rows of ``source``, each with its place in ``name``."""
    for i, row in enumerate(source, 1):
        yield f"{name}, row {i}", row


def hub(name: str, split: str) -> Iterator[Placed]:
    """The rows of ``owner/name``, with ``:config`` and ``@split`` if need be."""
    from datasets import load_dataset

    name, _, named_split = name.partition("@")
    repository, _, config = name.partition(":")
    try:
        data = load_dataset(repository, config or None, split=named_split or split)
    except Exception as error:  # the hub client raises many types
        raise InputError(
            f"the data set {name!r} is no file here and could not be had from the hub: {first_line(error)}"
        ) from error
    yield from items(data, name)


def from_address(address: str, split: str) -> Iterator[Placed]:
    """The rows of the file at ``address``, or of the data set of the Hub with this page."""
    from datasets import load_dataset

    if page := re.fullmatch(r"https?://huggingface\.co/datasets/([\w.-]+/[\w.-]+)/?", address):
        yield from hub(page[1], split)
        return
    path = address.split("?")[0].split("#")[0]
    builders = {
        ".jsonl": "json",
        ".ndjson": "json",
        ".json": "json",
        ".csv": "csv",
        ".parquet": "parquet",
        ".txt": "text",
    }
    builder = builders.get(formats.kind(path))
    if builder is None:
        raise InputError(f"{address} is of no known kind; rows at an address come as {', '.join(builders)}")
    try:
        data = load_dataset(builder, data_files=address, split="train")
    except Exception as error:
        raise InputError(f"{address} could not be had: {first_line(error)}") from error
    yield from items(data, Path(path).name)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
