"""Prompts made of a row: the question in a frame, after other turns, or with the answer begun; and what an answer scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from expunge.attacks.words import recall, unseen
from expunge.data.chat import question, split_prompt
from expunge.data.example import Message, Row

QUESTION = "{question}"  # the place of the question in a frame
Score = Callable[[str], float]


@dataclass(frozen=True)
class Asked:
    """A prompt about row ``index`` of the rows measured; ``score``: of an answer, 0 (nothing of it known) to 1.

    ``row``: the prompt, and the right answer; ``tokens``: at most so many are generated.
    """

    index: int
    row: Row
    score: Score
    tokens: int


def key(of: Asked) -> str:
    """What decides a greedy answer to a prompt, as a text."""
    return json.dumps([of.row.prompt, of.row.tools, of.row.begun, of.tokens], sort_keys=True, default=str)


def asked(index: int, row: Row, prompt: Row) -> Asked:
    """``prompt`` about ``row``, scored by the recall of the words of its answer that the prompt does not hold."""
    expected = unseen(row.answer, prompt_words(prompt))
    return Asked(index, replace(prompt, answer=row.answer), lambda given: recall(expected, given), room(row.answer))


def room(answer: str) -> int:
    """Tokens within which an answer like ``answer`` comes, said more wordily: 16 to 96."""
    return max(16, min(96, len(answer) // 3 + 12))


def with_prompt(row: Row) -> Row:
    """``row`` with a prompt: a plain text is cut in the middle, and a completion keeps its first blank."""
    return split_prompt(row)


def framed(row: Row, frame: str) -> Row:
    """The last question of ``row`` in ``frame``, a text with ``{question}`` in it."""
    return _with_question(row, frame.replace(QUESTION, question(row)))


def asking(row: Row, text: str) -> Row:
    """A row of the same form that asks ``text`` alone."""
    if isinstance(row.prompt, str):
        return replace(row, prompt=text)
    return replace(row, prompt=({"role": "user", "content": text},), message=None)


def after(row: Row, examples: Sequence[Row]) -> Row:
    """``row`` after worked ``examples``: earlier turns of a conversation, or texts with a blank line between them."""
    if isinstance(row.prompt, str):
        shown = [question(e) + _joint(e) + e.answer.strip() for e in examples]
        return replace(row, prompt="\n\n".join([*shown, row.prompt]))
    turns: list[Message] = []
    for e in examples:
        turns += [{"role": "user", "content": question(e)}, {"role": "assistant", "content": e.answer}]
    assert row.prompt is not None
    first = [m for m in row.prompt[:1] if m["role"] == "system"]
    return replace(row, prompt=(*first, *turns, *row.prompt[len(first) :]))


def begun(row: Row, beginning: str) -> Row:
    """``row`` with the answer begun, which the model continues."""
    if isinstance(row.prompt, str):
        return replace(row, prompt=row.prompt + _joint(row) + beginning.lstrip())
    assert row.prompt is not None
    last = row.prompt[-1]
    if row.begun and last["role"] == "assistant" and len(row.prompt) > 1:
        return replace(row, prompt=(*row.prompt[:-1], {**last, "content": last["content"] + beginning}), begun=True)
    return replace(row, prompt=(*row.prompt, {"role": "assistant", "content": beginning}), begun=True)


def prompt_words(row: Row) -> str:
    """All that the model is given."""
    if row.prompt is None:
        return ""
    return row.prompt if isinstance(row.prompt, str) else "\n".join(str(m.get("content") or "") for m in row.prompt)


def _with_question(row: Row, text: str) -> Row:
    if isinstance(row.prompt, str):
        return replace(row, prompt=text)
    assert row.prompt is not None
    last = len(row.prompt) - (2 if row.begun and len(row.prompt) > 1 and row.prompt[-1]["role"] == "assistant" else 1)
    turns = [{**m, "content": text} if i == last else m for i, m in enumerate(row.prompt)]
    return replace(row, prompt=tuple(turns))


def _joint(row: Row) -> str:
    """What is between a plain prompt and its answer."""
    return "" if question(row)[-1:].isspace() else " "
