"""Tokenisation of a row: the chat template around the prompt, labels on the answer and its end of turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from expunge.data import pieces, template, turns
from expunge.data.example import Example, Message, Row
from expunge.data.template import MARK
from expunge.errors import InputError
from expunge.forward.view import IGNORE


def encode(
    row: Row, tokenizer: Any, *, max_length: int = 512, answer: str | None = None, chat_template: bool = True
) -> Example:
    """``row`` as tokens, cut on the right at ``max_length``; ``answer`` replaces the row's own.

    Chat rows: the whole conversation as the template renders it, up to the end of the last turn; the part that the assistant
    has to write is labelled, end of turn included (of a row with ``every_turn`` in its earlier turns too).
    Prompt and completion: prompt tokens, then the completion and the end token, labelled.  Plain text: all of it is
    labelled (the first token has no prediction, so it is never scored), without an end token; of a piece all but its
    context.
    """
    text = row.answer if answer is None else answer
    if row.prompt is None:
        if row.piece and text == row.answer:
            return pieces.encode(row, tokenizer)
        ids = _ids(tokenizer, text, special=True)
        labels = ids
    elif isinstance(row.prompt, str):
        before = prompt_ids(row, tokenizer)
        after = _ids(tokenizer, text) + _end(tokenizer)
        ids, labels = before + after, [IGNORE] * len(before) + after
    elif chat_template:
        ids, labels = _conversation(row, tokenizer, text)
    else:
        ids, labels = _lines(row, tokenizer, text)
    return Example(tuple(ids[:max_length]), tuple(labels[:max_length]))


def _conversation(row: Row, tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Tokens and labels of the rendered conversation, up to the end of the last labelled turn."""
    messages, begun = conversation(row, text)
    labelled_turns = [i for i in _earlier(row, messages) if row.every_turn] + [len(messages) - 1]
    uncut = list(tokenizer.get_added_vocab()) if len(labelled_turns) > 1 else []
    rendering, spans = turns.rendered(_renderer(row, tokenizer), messages, labelled_turns, row.where, begun, uncut)
    ids, labels = _labelled(tokenizer, rendering, spans)
    end = max((i + 1 for i, y in enumerate(labels) if y != IGNORE), default=0)
    return ids[:end], labels[:end]


def conversation(row: Row, answer: str | None = None) -> tuple[list[Message], str]:
    """All messages of a chat row, ``answer`` in place of its own, and the beginning of the last one before the answer."""
    assert row.prompt is not None and not isinstance(row.prompt, str)
    before, begun = _begun(row)
    if (
        row.message
        and answer in (None, row.answer)
        and row.answer in (row.message["content"], str(row.message.get("tool_calls")))
    ):
        return [*before, row.message], begun
    return [*before, {"role": "assistant", "content": begun + (row.answer if answer is None else answer)}], begun


def _earlier(row: Row, messages: Sequence[Message]) -> list[int]:
    """The assistant's turns before the last; one with the weight 0, as in OpenAI's files, is not to be labelled."""
    return [i for i, m in enumerate(messages[:-1]) if m["role"] == "assistant" and m.get("weight") != 0]


def _lines(row: Row, tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Tokens and labels of a conversation as plain lines, "Question: … Answer: …", with the end token."""
    before, labels = prompt_ids(row, tokenizer, chat_template=False), []
    if row.every_turn:
        position, spans = 0, []
        turns_before = _begun(row)[0]
        earlier = _earlier(row, [*turns_before, {}])
        for i, m in enumerate(turns_before):
            line = _plain(m)
            if i in earlier:
                spans.append((position + len(line) - len(m["content"] or ""), position + len(line)))
            position += len(line) + 1
        labels = _labelled(tokenizer, prompt_text(row, tokenizer, chat_template=False), spans, special=True)[1]
    labels = labels[: len(before)] or [IGNORE] * len(before)
    after = _ids(tokenizer, text) + _end(tokenizer)
    return before + after, labels + after


def _labelled(
    tokenizer: Any, text: str, spans: Sequence[turns.Span], *, special: bool = False
) -> tuple[list[int], list[int]]:
    """The tokens of ``text``, and their labels: the tokens that overlap its character ``spans``."""
    if not getattr(tokenizer, "is_fast", False):
        return _segments(tokenizer, text, spans, special=special)
    coded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids, labels = list(coded.input_ids), [IGNORE] * len(coded.input_ids)
    k = 0
    for i, (start, end) in enumerate(coded.offset_mapping):
        while k < len(spans) and end > spans[k][1] and start >= spans[k][1]:
            k += 1
        # Some tokenizers exclude blanks from offsets: the offset of a blank is empty, at its end.
        if k < len(spans) and end > spans[k][0] and start < spans[k][1]:
            labels[i] = ids[i]
    return ids, labels


def _segments(tokenizer: Any, text: str, spans: Sequence[turns.Span], *, special: bool) -> tuple[list[int], list[int]]:
    """As :func:`_labelled`, for a tokenizer without offsets: each part is tokenised separately."""
    ids: list[int] = []
    labels: list[int] = []
    position = 0
    for begin, end in spans:
        before = _ids(tokenizer, text[position:begin], special=special and position == 0)
        span_ids = _ids(tokenizer, text[begin:end])
        ids += before + span_ids
        labels += [IGNORE] * len(before) + span_ids
        position = end
    trailing = _ids(tokenizer, text[position:]) if text[position:] else []
    return ids + trailing, labels + [IGNORE] * len(trailing)


def continuation(
    row: Row, tokenizer: Any, *, answer: str, max_length: int = 512, chat_template: bool = True
) -> Example:
    """``answer`` as the continuation of the prompt, without an end token; the prompt is cut on the left at ``max_length``.

    A plain prompt is tokenised together with its continuation, as lm-evaluation-harness does; apart where a token would
    span both.  A conversation's prompt ends with a token of its own, so it is always apart.
    """
    before = prompt_ids(row, tokenizer, chat_template=chat_template)
    after = _ids(tokenizer, answer)
    if isinstance(row.prompt, str):
        joined = _without_end(_ids(tokenizer, row.prompt + answer, special=True), tokenizer)
        if joined[: len(before)] == before and len(joined) > len(before):
            after = joined[len(before) :]
    after = after[: max_length - 1]
    before = before[-(max_length - len(after)) :]
    return Example((*before, *after), (*[IGNORE] * len(before), *after))


def prompt_text(row: Row, tokenizer: Any, *, chat_template: bool = True) -> str:
    """The text before the answer, as the prompt of generation.

    If the last message of the prompt is the assistant's, it is the beginning of the answer, which is continued.
    """
    if row.prompt is None:
        return ""
    if isinstance(row.prompt, str):
        return row.prompt
    before, begun = _begun(row)
    if not chat_template:
        lead = "" if begun.startswith("Answer:") else "Answer: "
        return "\n".join(_plain(m) for m in before) + f"\n{lead}{begun}"
    return template.render(tokenizer, before, row.where, generate=True, tools=row.tools) + begun


def prompt_ids(row: Row, tokenizer: Any, *, chat_template: bool = True) -> list[int]:
    """The tokens of :func:`prompt_text`, with the tokenizer's own start where no template writes one."""
    special = isinstance(row.prompt, str) or not chat_template
    ids = _ids(tokenizer, prompt_text(row, tokenizer, chat_template=chat_template), special=special)
    return _without_end(ids, tokenizer) if special else ids


def opened(text: str, tokenizer: Any, *, chat_template: bool = True) -> list[int]:
    """The tokens of a user's turn that begins with ``text`` and stays open; of ``text`` alone without a template."""
    if not chat_template:
        return _without_end(_ids(tokenizer, text, special=True), tokenizer)
    rendered = template.render(tokenizer, [{"role": "user", "content": MARK}], "an open turn", generate=False)
    if rendered.count(MARK) != 1:
        raise InputError("the tokenizer's chat template does not show what the user says; set chat_template=false")
    return _ids(tokenizer, rendered.split(MARK)[0] + text)


def split_prompt(row: Row) -> Row:
    """A plain text as prompt and completion, half of its words each.  Other rows as they are."""
    if row.prompt is not None:
        return row
    begin, _, end = row.piece or (0, 0, len(row.answer))
    words = row.answer[begin:end].split(" ")
    middle = max(1, len(words) // 2)
    return replace(row, prompt=" ".join(words[:middle]), answer=" ".join(words[middle:]), piece=None)


def question(row: Row) -> str:
    """The last message of the user, for display."""
    if row.prompt is None:
        return ""
    return row.prompt if isinstance(row.prompt, str) else _begun(row)[0][-1]["content"]


def end_of_turn(row: Row, tokenizer: Any) -> str:
    """The template's text right after an assistant's answer, up to its end-of-turn token."""
    return turns.end_of_turn(_renderer(row, tokenizer), conversation(row)[0], row.where)


def _renderer(row: Row, tokenizer: Any) -> turns.Render:
    return lambda messages, generate: template.render(
        tokenizer, messages, row.where, generate=generate, tools=row.tools
    )


def _begun(row: Row) -> tuple[list[Message], str]:
    """The turns before the answer, and the beginning of the answer if the prompt ends with one."""
    prompt = row.prompt
    assert prompt is not None and not isinstance(prompt, str)
    if row.begun and len(prompt) > 1 and prompt[-1]["role"] == "assistant" and not prompt[-1].get("tool_calls"):
        return [*prompt[:-1]], prompt[-1]["content"]
    return [*prompt], ""


def _plain(message: Message) -> str:
    name = {"user": "Question"}.get(message["role"], message["role"].capitalize())
    return f"{name}: {message['content'] or ''}"


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """``ids`` without an end token that the tokenizer appends to every text."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _ids(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special).input_ids)


def _end(tokenizer: Any) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
