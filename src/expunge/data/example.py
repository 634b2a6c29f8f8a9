"""The two forms of a data row: validated text, and tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One row, independent of its file's format.

    ``prompt``: chat messages before the answer, or raw prompt text, or None for plain text (all of it is the answer).
    ``alternate``: a preferred answer (DPO); ``paraphrase``, ``perturbed``: the right answer in other words, and wrong
    ones (truth ratio); ``where``: its place for messages, such as ``people.jsonl, line 12``.
    ``message``: the last message of a conversation where it is more than a role and the answer (tool calls, reasoning);
    ``tools``: descriptions of tools for the chat template; ``every_turn``: earlier assistant turns are labelled too;
    ``begun``: an assistant's message at the prompt's end is the beginning of the answer; else it is a turn of its own;
    ``piece``: of a long text, the characters (begin of the context, begin of the labelled part, end).
    """

    prompt: tuple[Message, ...] | str | None
    answer: str
    alternate: str | None = None
    paraphrase: str | None = None
    perturbed: tuple[str, ...] = ()
    where: str = ""
    message: Message | None = None
    tools: tuple[Any, ...] = ()
    every_turn: bool = False
    begun: bool = True
    piece: tuple[int, int, int] | None = None

    @property
    def further(self) -> tuple[Any, ...]:
        """The rarely used fields, for a fingerprint; empty where none is set."""
        out = (self.message, self.tools, self.every_turn, self.piece)
        return (out if any(out) else ()) + (() if self.begun else ("apart",))


@dataclass(frozen=True)
class Example:
    """One row as tokens: ``labels`` is as long as ``input_ids``, -100 where nothing is scored, not shifted."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def to_record(row: Row) -> dict[str, Any]:
    """The row's prompt and answer as a record of JSONL, which ``load_rows`` reads back."""
    if row.prompt is None:
        return {"text": row.answer}
    if isinstance(row.prompt, str):
        return {"prompt": row.prompt, "completion": row.answer}
    answer_message = row.message or {"role": "assistant", "content": row.answer}
    tools = {"tools": list(row.tools)} if row.tools else {}
    if row.begun and row.prompt[-1]["role"] == "assistant" and not row.prompt[-1].get("tool_calls"):
        return {"prompt": [*row.prompt], "completion": [answer_message]} | tools
    return {"messages": [*row.prompt, answer_message]} | tools


def evenly(rows: Sequence[Any], n: int) -> list[Any]:
    """At most ``n`` of ``rows``, in order: one of each of n equal parts, drawn at random, but the same whenever it is asked.

    So every part of a sorted file is there, and every kind of a file that repeats itself: every tenth row of one with ten
    questions about each person would ask the same question throughout.

    >>> evenly(range(10), 4), evenly("ab", 4)
    ([1, 4, 5, 7], ['a', 'b'])
    """
    if len(rows) <= n:
        return list(rows)
    draw = random.Random(0).random
    parts = [(i * len(rows) // n, (i + 1) * len(rows) // n) for i in range(n)]
    return [rows[start + int(draw() * (end - start))] for start, end in parts]
