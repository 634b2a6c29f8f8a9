"""A row through the tokenizer: the chat template around the prompt, labels on the answer and its end of turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from expunge.data.example import Example, Message, Row
from expunge.errors import InputError
from expunge.forward.view import IGNORE

MARK = "\u241fanswer\u241f"  # stands for an answer while a template is rendered


def encode(
    row: Row, tokenizer: Any, *, max_length: int = 512, answer: str | None = None, chat_template: bool = True
) -> Example:
    """``row`` as tokens, cut on the right at ``max_length``; ``answer`` stands in for the row's own.

    Chat rows: the template's prompt, then the answer and the end of turn as the template writes it, labelled.
    Prompt and completion: prompt tokens, then the completion and the end token, labelled.  Plain text: all of it is
    labelled (the first token has no prediction, so it is never scored), without an end token.
    """
    text = row.answer if answer is None else answer
    if row.prompt is None:
        ids = _ids(tokenizer, text, special=True)
        return Example(tuple(ids[:max_length]), tuple(ids[:max_length]))
    before = prompt_ids(row, tokenizer, chat_template=chat_template)
    if isinstance(row.prompt, str) or not chat_template:
        eos = tokenizer.eos_token_id
        after = _ids(tokenizer, text) + ([] if eos is None else [eos])
    else:
        after = _ids(tokenizer, text + end_of_turn(row, tokenizer))
    ids = (before + after)[:max_length]
    labels = ([IGNORE] * len(before) + after)[:max_length]
    return Example(tuple(ids), tuple(labels))


def continuation(
    row: Row, tokenizer: Any, *, answer: str, max_length: int = 512, chat_template: bool = True
) -> Example:
    """``answer`` as what goes on from the prompt, without an end token; the prompt is cut on the left at ``max_length``.

    A plain prompt is tokenised together with its continuation, as lm-evaluation-harness does; apart where a token would
    span both.  A conversation's prompt ends with a token of its own, so it is always apart.
    """
    before = prompt_ids(row, tokenizer, chat_template=chat_template)
    after = _ids(tokenizer, answer)
    if isinstance(row.prompt, str):
        whole = _without_end(_ids(tokenizer, row.prompt + answer, special=True), tokenizer)
        if whole[: len(before)] == before and len(whole) > len(before):
            after = whole[len(before) :]
    after = after[: max_length - 1]
    before = before[-(max_length - len(after)) :]
    return Example((*before, *after), (*[IGNORE] * len(before), *after))


def prompt_text(row: Row, tokenizer: Any, *, chat_template: bool = True) -> str:
    """The text that stands before the answer, ready to be continued.

    Where the last message of the prompt is the assistant's, it is how the answer begins, and it goes on from there.
    """
    if row.prompt is None:
        return ""
    if isinstance(row.prompt, str):
        return row.prompt
    before, begun = _begun(row.prompt)
    if not chat_template:
        lead = "" if begun.startswith("Answer:") else "Answer: "
        return "\n".join(_plain(m) for m in before) + f"\n{lead}{begun}"
    return _render(tokenizer, row, before, generate=True) + begun


def prompt_ids(row: Row, tokenizer: Any, *, chat_template: bool = True) -> list[int]:
    """The tokens of :func:`prompt_text`, with the tokenizer's own start where no template writes one."""
    special = isinstance(row.prompt, str) or not chat_template
    ids = _ids(tokenizer, prompt_text(row, tokenizer, chat_template=chat_template), special=special)
    return _without_end(ids, tokenizer) if special else ids


def opened(text: str, tokenizer: Any, *, chat_template: bool = True) -> list[int]:
    """The tokens of a user's turn that begins with ``text`` and stays open; of ``text`` alone where no template is used."""
    if not chat_template:
        return _without_end(_ids(tokenizer, text, special=True), tokenizer)
    row = Row(({"role": "user", "content": MARK},), "", where="an open turn")
    whole = _render(tokenizer, row, [{"role": "user", "content": MARK}], generate=False)
    if whole.count(MARK) != 1:
        raise InputError("the tokenizer's chat template does not show what the user says; set chat_template=false")
    return _ids(tokenizer, whole.split(MARK)[0] + text)


def split_prompt(row: Row) -> Row:
    """A plain text as something to be continued: half its words, then the other half as the answer.  Others stay."""
    if row.prompt is not None:
        return row
    words = row.answer.split(" ")
    middle = max(1, len(words) // 2)
    return replace(row, prompt=" ".join(words[:middle]), answer=" ".join(words[middle:]))


def question(row: Row) -> str:
    """The last thing the user said, for a person to read."""
    if row.prompt is None:
        return ""
    return row.prompt if isinstance(row.prompt, str) else _begun(row.prompt)[0][-1]["content"]


def end_of_turn(row: Row, tokenizer: Any) -> str:
    """What the template writes right after an assistant's answer, up to its end-of-turn token."""
    assert row.prompt is not None and not isinstance(row.prompt, str)
    before, _ = _begun(row.prompt)
    whole = _render(tokenizer, row, [*before, {"role": "assistant", "content": MARK}], generate=False)
    if whole.count(MARK) != 1:
        raise InputError(
            f"{row.where}: the tokenizer's chat template does not show the assistant's answer; cannot label it"
        )
    return whole.split(MARK)[1].rstrip("\n ")


def _begun(prompt: Sequence[Message]) -> tuple[list[Message], str]:
    """The turns before the answer, and how the answer begins where the prompt says so."""
    if len(prompt) > 1 and prompt[-1]["role"] == "assistant":
        return [*prompt[:-1]], prompt[-1]["content"]
    return [*prompt], ""


def _plain(message: dict[str, str]) -> str:
    name = {"user": "Question"}.get(message["role"], message["role"].capitalize())
    return f"{name}: {message['content']}"


def _render(tokenizer: Any, row: Row, messages: list[dict[str, str]], *, generate: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{row.where}: the row is a conversation, but the tokenizer has no chat template; "
            "set chat_template=false (of bench: --no-chat-template) for a plain 'Question: … Answer: …' form"
        )
    try:
        result: str = tokenizer.apply_chat_template(messages, add_generation_prompt=generate, tokenize=False)
        return result
    except Exception as error:  # templates raise what they like, from Jinja
        raise InputError(f"{row.where}: the tokenizer's chat template refuses the row: {error}") from error


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Without an end token that the tokenizer puts after every text."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _ids(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special).input_ids)
