"""Which column of a row is what: names as people write them, in any case, and a mapping of one's own."""

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
# What a column can be; each is a name that the user may map to another.
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
KNOWN = tuple(
    dict.fromkeys(
        [*PARTS, "instruction", "response", "output", "query", "conversations", "paraphrased_question", "answerkey"]
    )
)
NAMELESS = re.compile(r"(unnamed:_\d+|__index_level_\d+__|)$")  # what pandas writes for a row's number
INNER = ("data", "row", "record", "example", "sample", "item", "fields")  # a row in a row


def named(raw: Mapping[str, Any], mapping: Mapping[str, str], where: str) -> dict[str, tuple[str, Any]]:
    """Plain name -> (name as it stands, value) of the columns that hold something; mapped ones under their part's name.

    A plain name is in lower case with ``_`` for blanks; a mapped name may lead into an object, ``answer=reply.text``.
    """
    out: dict[str, tuple[str, Any]] = {}
    for name in raw:
        plain = normal(name)
        if plain not in out or str(name) == plain:  # of "Answer" and "answer" the second
            out[plain] = (str(name), raw[name])
    chosen = {}
    for part, name in mapping.items():
        column = name if name in raw else next((c for c in raw if normal(c) == normal(name)), None)
        if column is not None:
            out.pop(normal(column), None)
            chosen[part] = (str(column), raw[column])
        elif (value := _inside(raw, name)) is not None:
            out.pop(normal(name.partition(".")[0]), None)
            chosen[part] = (name, value)
    return {k: v for k, v in (out | chosen).items() if v[1] is not None}


def normal(name: Any) -> str:
    """A column's name without case, blanks and signs around it.

    >>> normal(" Paraphrased Answer"), normal("\\ufeffQuestion:")
    ('paraphrased_answer', 'question')
    """
    return _normal(str(name))


@lru_cache(maxsize=4096)  # every row has the same
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
    there = {normal(name) for name in raw}
    inner = next((v for v in raw.values() if isinstance(v, Mapping)), {}) if len(raw) == 1 else {}
    return {n for n in mapping.values() if normal(n) not in there and _inside(raw, n) is None and n not in inner}


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raise InputError for a part that no row has, or a column that is mapped to two."""
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
    given = {normal(n): n for n in names}
    wanted = [k for k in known if k not in given]
    for plain, name in given.items():
        if plain not in KNOWN and (close := difflib.get_close_matches(plain, wanted, n=1, cutoff=0.8)):
            raise InputError(f"{where}: unknown column {name!r}, did you mean {close[0]!r}?")


def unused(raw: Mapping[str, Any], used: Iterable[str]) -> list[str]:
    """The names of columns that hold something and that nobody read."""
    taken = set(used)
    return [
        str(name)
        for name, value in raw.items()
        if str(name) not in taken
        and not (value is None or (isinstance(value, str | list | dict) and not value))
        and not NAMELESS.match(normal(name))
        and normal(name) != "paraphrased_question"
    ]
