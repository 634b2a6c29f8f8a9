"""One raw row as a :class:`Row`, whatever its columns are called.

``messages`` or ``conversations``; a question and an answer under their many names, in the chat template (Alpaca's
``instruction/input/output``, ``prompt/response``, SQuAD's ``context/question/answers``); ``prompt/completion`` and
``input/output`` as they stand, without a template; or plain ``text``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expunge.data import columns
from expunge.data.columns import ANSWER, EXTRAS, INNER, MESSAGES, QUESTION, SYSTEM, TEXT
from expunge.data.example import Message, Row
from expunge.data.messages import from_json, messages, whole
from expunge.errors import InputError

PLAIN = (("prompt", "completion"), ("input", "output"))  # raw text before and after, unless the first is a list
TOOLS = ("tools", "functions")
LETTERS = "ABCDEFGHIJ"  # of choices
DEPTH = 3  # of a row in a row
TURNS = ("all", "last")  # of a conversation's assistant turns, which are labelled
Columns = dict[str, tuple[str, Any]]  # plain name -> (name as it stands, value)


@dataclass(frozen=True)
class How:
    """How rows are read: ``columns``: part -> the user's name for it; ``turns``: which assistant turns are labelled."""

    columns: Mapping[str, str]
    turns: str = "all"


def parse(raw: Any, where: str, how: How | None = None, *, inside: int = 0) -> tuple[Row, list[str]]:
    """The row, and the names of the columns that hold something and are not used.

    Raises InputError with the place for a row that is none of the known kinds, and for a field that is missing or empty.
    """
    how = how or How({})
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: a row must be an object with named fields, this is a {type(raw).__name__}")
    given = columns.named(raw, how.columns, where)
    kind = _kind(given)
    if kind is None and inside < DEPTH and (inner := _inner(raw)) is not None:
        return parse(inner, where, how, inside=inside + 1)
    columns.unknown(raw, where, known=EXTRAS if kind else columns.KNOWN)
    if kind is None:
        raise InputError(_unreadable(raw, given, where, how))
    row, used = _read(kind, given, where)
    extras: dict[str, Any] = {
        "alternate": _alternate(given, where),
        "paraphrase": _optional(given, "paraphrased_answer", where),
        "perturbed": _perturbed(given.get("perturbed_answer", ("", None))[1], where),
    }
    if not isinstance(row.prompt, str | None):
        row = replace(row, every_turn=_every_turn(row, kind, how))
    taken = [given[name][0] for name in (*used, *EXTRAS) if name in given]
    return replace(row, **extras), columns.unused(raw, [*taken, *(name.partition(".")[0] for name in taken)])


def _kind(given: Columns) -> tuple[str, ...] | None:
    """The columns that hold prompt and answer."""
    answer = next((a for a in ANSWER if a in given), None)
    if "question" in given and answer:
        return "question", answer
    if all(name in given for name in PLAIN[0]):
        return PLAIN[0]
    if answer and (asked := next((q for q in QUESTION if q in given), None)):
        return asked, answer
    for name in (*MESSAGES, *TEXT):
        if name in given and (name not in MESSAGES or not isinstance(from_json(given[name][1]), str)):
            return (name,)
    return None


def _read(kind: tuple[str, ...], given: Columns, where: str) -> tuple[Row, list[str]]:
    """The row without its further answers, and the plain names of what was read."""
    first, second = kind[0], kind[-1]
    value = from_json(given[first][1]) if first in (*MESSAGES, "prompt") else given[first][1]
    if first in MESSAGES:
        said = _system(messages(value, where, given[first][0]), given, where)
        said = _trained(said, where)
        row = _conversation(said[:-1], said[-1:], given, where)
        return replace(row, begun=said[-2]["role"] != "assistant"), [first, *SYSTEM, *TOOLS]
    if kind == (first,):
        return Row(None, _text(given, first, where), where=where), [first]
    if isinstance(value, Sequence) and not isinstance(value, str):
        before = _system(messages(value, where, given[first][0]), given, where)
        after = from_json(given[second][1])
        if isinstance(after, str):
            after = [{"role": "assistant", "content": _text(given, second, where)}]
        return _conversation(before, messages(after, where, given[second][0]), given, where), [*kind, *SYSTEM, *TOOLS]
    prompt, answer = _text(given, first, where), _answer(given, second, where)
    if kind in PLAIN and not any(name in given for name in (*SYSTEM, "context")):
        return Row(prompt, answer, where=where), [*kind]
    asked = [_text(given, "context", where)] if _filled(given, "context") else []
    asked.append(prompt)
    further = ["input"] if "input" not in kind and first != "question" and _filled(given, "input") else []
    asked += [_text(given, name, where) for name in further]
    before = [*_history(given, where), {"role": "user", "content": "\n\n".join(asked)}]
    row = Row(tuple(_system(before, given, where)), answer, where=where, tools=_tools(given, where))
    return row, [
        *kind,
        "context",
        *(["choices"] if second in ("answer", "answerkey") else []),
        *further,
        "history",
        *SYSTEM,
        *TOOLS,
    ]


def _trained(said: list[Message], where: str) -> list[Message]:
    """``said`` up to the last answer that is to be trained on: not one of the weight 0, as in OpenAI's files."""
    if said[-1]["role"] != "assistant" or said[-1].get("weight") != 0:
        return said
    last = max((i for i, m in enumerate(said) if m["role"] == "assistant" and m.get("weight") != 0), default=0)
    if not last:
        raise InputError(f"{where}: every message of the assistant has the weight 0, so nothing is to be trained on")
    return said[: last + 1]


def _every_turn(row: Row, kind: tuple[str, ...], how: How) -> bool:
    """Whether earlier assistant turns are labelled: not where the row itself says what the prompt is."""
    earlier = any(
        m["role"] == "assistant" for m in (row.prompt or ())[: -1 if row.begun else None] if isinstance(m, dict)
    )
    return earlier and how.turns == "all" and kind[0] in (*MESSAGES, "question", "instruction", "query")


def _system(said: list[Message], given: Columns, where: str) -> list[Message]:
    """``said`` after the system message that has a column of its own."""
    name = next((n for n in SYSTEM if _filled(given, n)), None)
    if name is None:
        return said
    text = _text(given, name, where)
    if said[0]["role"] == "system":
        return said if said[0]["content"].strip() == text.strip() else _joined(text, said)
    return [{"role": "system", "content": text}, *said]


def _joined(text: str, said: list[Message]) -> list[Message]:
    return [{"role": "system", "content": f"{text}\n\n{said[0]['content']}"}, *said[1:]]


def _history(given: Columns, where: str) -> list[Message]:
    """Earlier turns as pairs of question and answer."""
    value = from_json(given.get("history", ("", None))[1])
    if not value:
        return []
    if isinstance(value, str) or not all(isinstance(p, Sequence) and len(p) == 2 for p in value):
        raise InputError(f"{where}: 'history' must be a list of pairs, question and answer")
    said = [{"role": r, "content": text} for pair in value for r, text in zip(("user", "assistant"), pair, strict=True)]
    return messages(said, where, "history")


def _conversation(before: Sequence[Message], last: Sequence[Message], given: Columns, where: str) -> Row:
    if len(last) != 1 or last[0]["role"] != "assistant":
        raise InputError(f"{where}: the last message must be the assistant's, for it is the answer")
    if not before:
        raise InputError(f"{where}: there is no message before the assistant's answer")
    more = dict(last[0]) if set(last[0]) - {"role", "content", "weight"} else None
    answer = last[0]["content"] or str(last[0].get("tool_calls"))
    return Row(tuple(before), answer, where=where, message=more, tools=_tools(given, where))


def _tools(given: Columns, where: str) -> tuple[Any, ...]:
    value = from_json(given.get("tools", given.get("functions", ("", None)))[1])
    if value in (None, "", [], {}):
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{where}: 'tools' must be a list of objects")
    bare = "functions" in given and "tools" not in given  # OpenAI's older form
    return tuple({"type": "function", "function": f} for f in value) if bare else tuple(value)


# -- fields ---------------------------------------------------------------------------------------------------------------
def _answer(given: Columns, name: str, where: str) -> str:
    """The answer's text; of SQuAD's ``{"text": […]}`` and of a list of right answers the first."""
    value = given[name][1]
    value = value.get("text", value) if isinstance(value, Mapping) else value
    value = value.tolist() if hasattr(value, "tolist") else value
    if "choices" in given and name in ("answer", "answerkey"):
        return _text({name: (given[name][0], _chosen(from_json(given["choices"][1]), value, where))}, name, where)
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], str):
        return _text({name: (given[name][0], value[0])}, name, where)
    return _text({name: (given[name][0], value)}, name, where)


def _chosen(choices: Any, answer: Any, where: str) -> Any:
    """The text of the choice that ``answer`` names by its place, its letter or its label; else ``answer``."""
    labels: Any = list(LETTERS)
    if isinstance(choices, Mapping):  # ARC's
        labels, choices = choices.get("label", labels), choices.get("text")
    if not isinstance(choices, Sequence) or isinstance(choices, str) or answer in choices:
        return answer
    place = answer if isinstance(answer, int) and not isinstance(answer, bool) else None
    if isinstance(answer, str):
        place = [*labels].index(answer) if answer in labels else int(answer) if answer.isdecimal() else None
    if place is None or not 0 <= place < len(choices):
        raise InputError(
            f"{where}: the answer names none of the {len(choices)} choices, by its place from 0, letter or text"
        )
    return choices[place]


def _text(given: Columns, name: str, where: str) -> str:
    shown, value = given[name]
    if not isinstance(value, str):
        raise InputError(f"{where}: the field {shown!r} must be text, it is {_what(value, name, shown)}")
    if not value.strip():
        raise InputError(f"{where}: the field {shown!r} is empty")
    return whole(value, where, shown)


def _what(value: Any, name: str, shown: str) -> str:
    """What ``value`` is instead of text, and what to do about it."""
    if value != value:  # as pandas writes what is missing
        return "a float that is no number (NaN); fill it in, or leave such rows out"
    if isinstance(value, bool | int | float):
        return f"a {type(value).__name__}; put quotes around it"
    if isinstance(value, Mapping) and value:
        return f"a {type(value).__name__}; say which part of it, such as --columns {name}={shown}.{next(iter(value))}"
    if isinstance(value, Sequence) and not value:
        return f"a {type(value).__name__} that is empty, as of a question without an answer; leave such rows out"
    return f"a {type(value).__name__}"


def _filled(given: Columns, name: str) -> bool:
    return name in given and given[name][1] != ""


def _optional(given: Columns, name: str, where: str) -> str | None:
    return _text(given, name, where) if _filled(given, name) else None


def _alternate(given: Columns, where: str) -> str | None:
    """The preferred answer; of a conversation its last message."""
    value = from_json(given["alternate"][1]) if "alternate" in given else None
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return _optional(given, "alternate", where)
    shown = given["alternate"][0]
    return _text({"alternate": (shown, messages(value, where, shown)[-1]["content"])}, "alternate", where)


def _perturbed(value: Any, where: str) -> tuple[str, ...]:
    value = from_json(value)
    if value is None or value == "":
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(v, str) and v.strip() for v in items):
        raise InputError(f"{where}: 'perturbed_answer' must be a list of texts")
    return tuple(whole(v, where, "perturbed_answer") for v in items)


def _inner(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row in the row, where that is all there is to read."""
    inside = [v for k, v in raw.items() if isinstance(v, Mapping) and (columns.normal(k) in INNER or len(raw) == 1)]
    return inside[0] if len(inside) == 1 else None


def _unreadable(raw: Mapping[str, Any], given: Columns, where: str, how: How) -> str:
    """The sentence for a row without the columns of any kind."""
    absent = [name for part, name in how.columns.items() if part not in given and name not in raw]
    if absent:
        return f"{where}: there is no column {absent[0]!r}; the row has {_names(raw)}"
    plain = {columns.normal(n) for n in raw}
    if {"chosen", "rejected"} <= plain:
        asked = next((q for q in QUESTION if q in given), None)
        whole = "text" if isinstance(given.get("rejected", ("", None))[1], str) else "messages"
        return (
            f"{where}: the row has two answers, 'chosen' and 'rejected'; say which is to be forgotten, such as --columns "
            f"{f'question={asked},answer' if asked else whole}=rejected,alternate=chosen"
        )
    empty = [str(n) for n, v in raw.items() if v is None and columns.normal(n) in (*QUESTION, *ANSWER, *TEXT)]
    if empty:
        return f"{where}: the field {empty[0]!r} is null; fill it in, or leave such rows out"
    for pair in (("question", "answer"), *PLAIN):
        have = [name for name in pair if name in plain]
        if have:
            missing = next((name for name in pair if name not in given), pair[-1])
            return (
                f"{where}: the field {missing!r} is missing; a row has {' and '.join(pair)} (this one has {_names(raw)}); "
                f"name others with --columns {pair[0]}=COLUMN,{pair[1]}=COLUMN"
            )
    return (
        f"{where}: no known columns (found {_names(raw)}); a row is question/answer, prompt/completion, messages or text; "
        "name others with --columns question=COLUMN,answer=COLUMN, or text=COLUMN"
    )


def _names(raw: Mapping[str, Any]) -> str:
    names = [repr(str(n) if len(str(n)) <= 40 else f"{str(n)[:40]}…") for n in raw]
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "none"
