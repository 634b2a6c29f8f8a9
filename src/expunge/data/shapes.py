"""One raw row as a :class:`Row`, for all usual names of columns.

``messages`` or ``conversations``; a question and an answer under their many names, in the chat template (Alpaca's
``instruction/input/output``, ``prompt/response``, SQuAD's ``context/question/answers``); ``prompt/completion`` and
``input/output`` as raw text, without a template; or plain ``text``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expunge.data import columns
from expunge.data.columns import ANSWER, EXTRAS, INNER, MESSAGES, QUESTION, SYSTEM, TEXT
from expunge.data.example import Message, Row
from expunge.data.messages import check_unicode, from_json, messages
from expunge.errors import InputError

PLAIN = (("prompt", "completion"), ("input", "output"))  # raw text before and after, unless the first is a list
TOOLS = ("tools", "functions")
LETTERS = "ABCDEFGHIJ"  # labels of choices
DEPTH = 3  # levels of nesting of a row
TURNS = ("all", "last")  # of a conversation's assistant turns, which are labelled
Columns = dict[str, tuple[str, Any]]  # normalised name -> (original name, value)


@dataclass(frozen=True)
class ReadOptions:
    """``columns``: role -> the user's name for it; ``turns``: which assistant turns are labelled."""

    columns: Mapping[str, str]
    turns: str = "all"


def parse(raw: Any, where: str, options: ReadOptions | None = None, *, depth: int = 0) -> tuple[Row, list[str]]:
    """The row, and the names of the non-empty columns that are not used.

    Raises InputError with the place for a row of no known kind, and for a field that is missing or empty.
    """
    options = options or ReadOptions({})
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: a row must be an object with named fields, this is a {type(raw).__name__}")
    fields = columns.by_name(raw, options.columns, where)
    kind = _kind(fields)
    if kind is None and depth < DEPTH and (inner := _inner(raw)) is not None:
        return parse(inner, where, options, depth=depth + 1)
    columns.unknown(raw, where, known=EXTRAS if kind else columns.KNOWN_COLUMNS)
    if kind is None:
        raise InputError(_unreadable(raw, fields, where, options))
    row, names = _base_row(kind, fields, where)
    extras: dict[str, Any] = {
        "alternate": _alternate(fields, where),
        "paraphrase": _optional(fields, "paraphrased_answer", where),
        "perturbed": _perturbed(fields.get("perturbed_answer", ("", None))[1], where),
    }
    if not isinstance(row.prompt, str | None):
        row = replace(row, every_turn=_every_turn(row, kind, options))
    used_columns = [fields[name][0] for name in (*names, *EXTRAS) if name in fields]
    return replace(row, **extras), columns.unused(
        raw, [*used_columns, *(name.partition(".")[0] for name in used_columns)]
    )


def _kind(fields: Columns) -> tuple[str, ...] | None:
    """The columns that hold prompt and answer."""
    answer = next((a for a in ANSWER if a in fields), None)
    if "question" in fields and answer:
        return "question", answer
    if all(name in fields for name in PLAIN[0]):
        return PLAIN[0]
    if answer and (question := next((q for q in QUESTION if q in fields), None)):
        return question, answer
    for name in (*MESSAGES, *TEXT):
        if name in fields and (name not in MESSAGES or not isinstance(from_json(fields[name][1]), str)):
            return (name,)
    return None


def _base_row(kind: tuple[str, ...], fields: Columns, where: str) -> tuple[Row, list[str]]:
    """The row without alternate, paraphrased and perturbed answers, and the normalised names of the columns read."""
    first, second = kind[0], kind[-1]
    value = from_json(fields[first][1]) if first in (*MESSAGES, "prompt") else fields[first][1]
    if first in MESSAGES:
        turns = _system(messages(value, where, fields[first][0]), fields, where)
        turns = _until_trained(turns, where)
        row = _conversation(turns[:-1], turns[-1:], fields, where)
        return replace(row, begun=turns[-2]["role"] != "assistant"), [first, *SYSTEM, *TOOLS]
    if kind == (first,):
        return Row(None, _text(fields, first, where), where=where), [first]
    if isinstance(value, Sequence) and not isinstance(value, str):
        before = _system(messages(value, where, fields[first][0]), fields, where)
        after = from_json(fields[second][1])
        if isinstance(after, str):
            after = [{"role": "assistant", "content": _text(fields, second, where)}]
        return _conversation(before, messages(after, where, fields[second][0]), fields, where), [*kind, *SYSTEM, *TOOLS]
    prompt, answer = _text(fields, first, where), _answer(fields, second, where)
    if kind in PLAIN and not any(name in fields for name in (*SYSTEM, "context")):
        return Row(prompt, answer, where=where), [*kind]
    prompt_parts = [_text(fields, "context", where)] if _filled(fields, "context") else []
    prompt_parts.append(prompt)
    extra = ["input"] if "input" not in kind and first != "question" and _filled(fields, "input") else []
    prompt_parts += [_text(fields, name, where) for name in extra]
    before = [*_history(fields, where), {"role": "user", "content": "\n\n".join(prompt_parts)}]
    row = Row(tuple(_system(before, fields, where)), answer, where=where, tools=_tools(fields, where))
    return row, [
        *kind,
        "context",
        *(["choices"] if second in ("answer", "answerkey") else []),
        *extra,
        "history",
        *SYSTEM,
        *TOOLS,
    ]


def _until_trained(turns: list[Message], where: str) -> list[Message]:
    """``turns`` up to the last assistant's message whose weight is not 0, as in OpenAI's files."""
    if turns[-1]["role"] != "assistant" or turns[-1].get("weight") != 0:
        return turns
    last_trained = max((i for i, m in enumerate(turns) if m["role"] == "assistant" and m.get("weight") != 0), default=0)
    if not last_trained:
        raise InputError(f"{where}: every message of the assistant has the weight 0, so nothing is to be trained on")
    return turns[: last_trained + 1]


def _every_turn(row: Row, kind: tuple[str, ...], options: ReadOptions) -> bool:
    """Whether earlier assistant turns are labelled: not where the row has a prompt column of its own."""
    earlier = any(
        m["role"] == "assistant" for m in (row.prompt or ())[: -1 if row.begun else None] if isinstance(m, dict)
    )
    return earlier and options.turns == "all" and kind[0] in (*MESSAGES, "question", "instruction", "query")


def _system(turns: list[Message], fields: Columns, where: str) -> list[Message]:
    """``turns`` after the system message of a system column."""
    name = next((n for n in SYSTEM if _filled(fields, n)), None)
    if name is None:
        return turns
    text = _text(fields, name, where)
    if turns[0]["role"] == "system":
        return turns if turns[0]["content"].strip() == text.strip() else _joined(text, turns)
    return [{"role": "system", "content": text}, *turns]


def _joined(text: str, turns: list[Message]) -> list[Message]:
    return [{"role": "system", "content": f"{text}\n\n{turns[0]['content']}"}, *turns[1:]]


def _history(fields: Columns, where: str) -> list[Message]:
    """Earlier turns as pairs of question and answer."""
    value = from_json(fields.get("history", ("", None))[1])
    if not value:
        return []
    if isinstance(value, str) or not all(isinstance(p, Sequence) and len(p) == 2 for p in value):
        raise InputError(f"{where}: 'history' must be a list of pairs, question and answer")
    turns = [
        {"role": r, "content": text} for pair in value for r, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return messages(turns, where, "history")


def _conversation(before: Sequence[Message], answer_turns: Sequence[Message], fields: Columns, where: str) -> Row:
    if len(answer_turns) != 1 or answer_turns[0]["role"] != "assistant":
        raise InputError(f"{where}: the last message must be the assistant's, for it is the answer")
    if not before:
        raise InputError(f"{where}: there is no message before the assistant's answer")
    message = dict(answer_turns[0]) if set(answer_turns[0]) - {"role", "content", "weight"} else None
    answer = answer_turns[0]["content"] or str(answer_turns[0].get("tool_calls"))
    return Row(tuple(before), answer, where=where, message=message, tools=_tools(fields, where))


def _tools(fields: Columns, where: str) -> tuple[Any, ...]:
    value = from_json(fields.get("tools", fields.get("functions", ("", None)))[1])
    if value in (None, "", [], {}):
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{where}: 'tools' must be a list of objects")
    are_functions = "functions" in fields and "tools" not in fields  # OpenAI's older form
    return tuple({"type": "function", "function": f} for f in value) if are_functions else tuple(value)


# -- fields ---------------------------------------------------------------------------------------------------------------
def _answer(fields: Columns, name: str, where: str) -> str:
    """The answer's text; of SQuAD's ``{"text": […]}`` and of a list of right answers the first."""
    value = fields[name][1]
    value = value.get("text", value) if isinstance(value, Mapping) else value
    value = value.tolist() if hasattr(value, "tolist") else value
    if "choices" in fields and name in ("answer", "answerkey"):
        return _text(
            {name: (fields[name][0], _choice_text(from_json(fields["choices"][1]), value, where))}, name, where
        )
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], str):
        return _text({name: (fields[name][0], value[0])}, name, where)
    return _text({name: (fields[name][0], value)}, name, where)


def _choice_text(choices: Any, answer: Any, where: str) -> Any:
    """The text of the choice that ``answer`` names by index, letter or label; else ``answer``."""
    labels: Any = list(LETTERS)
    if isinstance(choices, Mapping):  # ARC's
        labels, choices = choices.get("label", labels), choices.get("text")
    if not isinstance(choices, Sequence) or isinstance(choices, str) or answer in choices:
        return answer
    index = answer if isinstance(answer, int) and not isinstance(answer, bool) else None
    if isinstance(answer, str):
        index = [*labels].index(answer) if answer in labels else int(answer) if answer.isdecimal() else None
    if index is None or not 0 <= index < len(choices):
        raise InputError(
            f"{where}: the answer names none of the {len(choices)} choices, by its place from 0, letter or text"
        )
    return choices[index]


def _text(fields: Columns, name: str, where: str) -> str:
    column, value = fields[name]
    if not isinstance(value, str):
        raise InputError(f"{where}: the field {column!r} must be text, it is {_type_and_remedy(value, name, column)}")
    if not value.strip():
        raise InputError(f"{where}: the field {column!r} is empty")
    return check_unicode(value, where, column)


def _type_and_remedy(value: Any, name: str, column: str) -> str:
    """The type of ``value``, which is not text, and the remedy, for a message."""
    if value != value:  # pandas' missing value
        return "a float that is no number (NaN); fill it in, or leave such rows out"
    if isinstance(value, bool | int | float):
        return f"a {type(value).__name__}; put quotes around it"
    if isinstance(value, Mapping) and value:
        return f"a {type(value).__name__}; say which part of it, such as --columns {name}={column}.{next(iter(value))}"
    if isinstance(value, Sequence) and not value:
        return f"a {type(value).__name__} that is empty, as of a question without an answer; leave such rows out"
    return f"a {type(value).__name__}"


def _filled(fields: Columns, name: str) -> bool:
    return name in fields and fields[name][1] != ""


def _optional(fields: Columns, name: str, where: str) -> str | None:
    return _text(fields, name, where) if _filled(fields, name) else None


def _alternate(fields: Columns, where: str) -> str | None:
    """The preferred answer; of a conversation its last message."""
    value = from_json(fields["alternate"][1]) if "alternate" in fields else None
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return _optional(fields, "alternate", where)
    column = fields["alternate"][0]
    return _text({"alternate": (column, messages(value, where, column)[-1]["content"])}, "alternate", where)


def _perturbed(value: Any, where: str) -> tuple[str, ...]:
    value = from_json(value)
    if value is None or value == "":
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(v, str) and v.strip() for v in items):
        raise InputError(f"{where}: 'perturbed_answer' must be a list of texts")
    return tuple(check_unicode(v, where, "perturbed_answer") for v in items)


def _inner(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The nested row, if there is exactly one."""
    candidates = [v for k, v in raw.items() if isinstance(v, Mapping) and (columns.normal(k) in INNER or len(raw) == 1)]
    return candidates[0] if len(candidates) == 1 else None


def _unreadable(raw: Mapping[str, Any], fields: Columns, where: str, options: ReadOptions) -> str:
    """The message for a row without the columns of any kind."""
    absent = [name for part, name in options.columns.items() if part not in fields and name not in raw]
    if absent:
        return f"{where}: there is no column {absent[0]!r}; the row has {_names(raw)}"
    normalised = {columns.normal(n) for n in raw}
    if {"chosen", "rejected"} <= normalised:
        question = next((q for q in QUESTION if q in fields), None)
        column = "text" if isinstance(fields.get("rejected", ("", None))[1], str) else "messages"
        return (
            f"{where}: the row has two answers, 'chosen' and 'rejected'; say which is to be forgotten, such as --columns "
            f"{f'question={question},answer' if question else column}=rejected,alternate=chosen"
        )
    empty = [str(n) for n, v in raw.items() if v is None and columns.normal(n) in (*QUESTION, *ANSWER, *TEXT)]
    if empty:
        return f"{where}: the field {empty[0]!r} is null; fill it in, or leave such rows out"
    for pair in (("question", "answer"), *PLAIN):
        present = [name for name in pair if name in normalised]
        if present:
            missing = next((name for name in pair if name not in fields), pair[-1])
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
