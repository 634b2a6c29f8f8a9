"""The roles of a row's columns: usual names, in any case, and a mapping given by the user."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from expunge.errors import InputError, nearest

QUESTION = ("question", "instruction", "prompt", "query", "problem", "user", "human", "q", "input")
ANSWER = (
    "answer",
    "response",
    "output",
    "completion",
    "answers",
    "solution",
    "reply",
    "assistant",
    "gpt",
    "a",
    "answerkey",
)
TEXT = ("text", "content", "document", "passage", "article", "story")
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog")
SYSTEM = ("system", "system_prompt", "system_message")
EXTRAS = ("alternate", "paraphrased_answer", "perturbed_answer")
# Roles of columns; the user may map each to a column of another name.
PARTS = (
    *(
        "question",
        "answer",
        "context",
        "system",
        "history",
        "input",
        "text",
        "prompt",
        "completion",
        "messages",
        "tools",
    ),
    *EXTRAS,
)
KNOWN_COLUMNS = tuple(
    dict.fromkeys(
        [*PARTS, "instruction", "response", "output", "query", "conversations", "paraphrased_question", "answerkey"]
    )
)
NAMELESS = re.compile(r"(unnamed:_\d+|__index_level_\d+__|)$")  # the name that pandas gives to an index column
INNER = ("data", "row", "record", "example", "sample", "item", "fields")  # a row in a row


def by_name(raw: Mapping[str, Any], mapping: Mapping[str, str], where: str) -> dict[str, tuple[str, Any]]:
    """Normalised name -> (original name, value) of the columns that are not null; mapped ones under their role's name.

    A normalised name is in lower case with ``_`` for blanks; a mapped name may be a path, ``answer=reply.text``.
    """
    out: dict[str, tuple[str, Any]] = {}
    for name in raw:
        normalised = normal(name)
        if normalised not in out or str(name) == normalised:  # of "Answer" and "answer" the second
            out[normalised] = (str(name), raw[name])
    mapped = {}
    for part, name in mapping.items():
        column = name if name in raw else next((c for c in raw if normal(c) == normal(name)), None)
        if column is not None:
            out.pop(normal(column), None)
            mapped[part] = (str(column), raw[column])
        elif (value := _inside(raw, name)) is not None:
            out.pop(normal(name.partition(".")[0]), None)
            mapped[part] = (name, value)
    return {k: v for k, v in (out | mapped).items() if v[1] is not None}


def normal(name: Any) -> str:
    """A column's name without case, blanks and signs around it.

    >>> normal(" Paraphrased Answer"), normal("\\ufeffQuestion:")
    ('paraphrased_answer', 'question')
    """
    return _normal(str(name))


@lru_cache(maxsize=4096)  # all rows have the same names
def _normal(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip("\ufeff \t\r\n\"':?").casefold())


def _inside(raw: Mapping[str, Any], name: str) -> Any:
    value: Any = raw
    for step in name.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return value


def absent(raw: Any, mapping: Mapping[str, str]) -> set[str]:
    """The columns of ``mapping`` that ``raw`` does not have."""
    if not isinstance(raw, Mapping):
        return set(mapping.values())
    present = {normal(name) for name in raw}
    inner = next((v for v in raw.values() if isinstance(v, Mapping)), {}) if len(raw) == 1 else {}
    return {n for n in mapping.values() if normal(n) not in present and _inside(raw, n) is None and n not in inner}


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raise InputError for an unknown role, or a column that is mapped to two roles."""
    for part, name in mapping.items():
        if part not in PARTS:
            raise InputError(
                f"columns: there is no part {part!r}{nearest(part, PARTS)}; write PART=COLUMN, such as question=Frage, "
                f"the part one of {', '.join(PARTS)}"
            )
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"columns: {part} needs the name of a column, such as {part}=Frage")
    if len(set(mapping.values())) < len(mapping):
        raise InputError("columns: one column is given for two parts; give each its own")


def unknown(names: Iterable[str], where: str, *, known: Iterable[str]) -> None:
    """Raise InputError for a name that looks like a misspelt one of ``known``."""
    names_by_normal = {normal(n): n for n in names}
    missing = [k for k in known if k not in names_by_normal]
    for normalised, name in names_by_normal.items():
        if normalised not in KNOWN_COLUMNS and (
            close := difflib.get_close_matches(normalised, missing, n=1, cutoff=0.8)
        ):
            raise InputError(f"{where}: unknown column {name!r}, did you mean {close[0]!r}?")


def unused(raw: Mapping[str, Any], used: Iterable[str]) -> list[str]:
    """The names of non-empty columns that are not in ``used``."""
    read_names = set(used)
    return [
        str(name)
        for name, value in raw.items()
        if str(name) not in read_names
        and not (value is None or (isinstance(value, str | list | dict) and not value))
        and not NAMELESS.match(normal(name))
        and normal(name) != "paraphrased_question"
    ]
