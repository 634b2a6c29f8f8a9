"""The positions of the assistant's turns in a conversation rendered by its chat template.

The text is the template's own rendering of the whole conversation.  A turn is the part that the model has to write: what
follows the generation prompt (an empty ``<think></think>`` included), up to the end of the turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from expunge.data.example import Message
from expunge.data.template import MARK
from expunge.errors import InputError

EXCERPT = 80  # characters of a rendering in a message
Render = Callable[[Sequence[Message], bool], str]  # (messages, with the generation prompt) -> text
Span = tuple[int, int]


def rendered(
    render: Render,
    messages: Sequence[Message],
    turns: Iterable[int],
    where: str,
    begun: str = "",
    tokens: Sequence[str] = (),
) -> tuple[str, list[Span]]:
    """The whole conversation as text, and the characters of its messages ``turns``, assistant turns all.

    ``begun``: the beginning of the last message that is not part of the answer; ``tokens``: texts that are never cut.

    Raises InputError where the template leaves a turn out, or changes it.
    """
    text = render(messages, False)
    final = _split(render, messages, len(messages) - 1, where)
    spans = [_span(render, messages, i, text, final, where, tokens) for i in turns]
    if begun:
        begin, end = spans[-1]
        position = text.find(begun, begin, end)
        if position < 0:
            raise InputError(f"{where}: {_difference('how the answer begins', begun, text[begin:end])}")
        spans[-1] = (position + len(begun), end)
    return text, spans


def _whole_tokens(text: str, begin: int, end: int, tokens: Iterable[str]) -> int:
    """``end`` of the common beginning of two ends of turns, moved so that no text in ``tokens`` is split.

    Text after a whole token is left out: "<|end|> <|user|>" and "<|end|> <|endoftext|>" both begin with "<|end|>".  Where
    there is none, as in "<|end|>" and "<|return|>", the token is the end of the turn.

    >>> tokens = ["<|end|>", "<|user|>"]
    >>> _whole_tokens("Oru<|end|> <|user|>", 3, 13, tokens), _whole_tokens("Oru<|end|><|user|>", 3, 5, tokens)
    (10, 10)
    """
    matches = [(m.start(), m.end()) for token in tokens for m in re.finditer(re.escape(token), text[begin:])]
    inside = [begin + stop for _, stop in matches if begin + stop <= end]
    overlapping = [begin + stop for start, stop in matches if begin + start < end < begin + stop]
    return max(inside, default=max(overlapping, default=end))


def end_of_turn(render: Render, messages: Sequence[Message], where: str) -> str:
    """The template's text right after the last message, an assistant's, up to its end-of-turn token."""
    return _split(render, messages, len(messages) - 1, where)[1].rstrip("\n ")


def _span(
    render: Render,
    messages: Sequence[Message],
    i: int,
    text: str,
    final: tuple[str, str],
    where: str,
    tokens: Sequence[str],
) -> Span:
    """The characters of message ``i`` in ``text``; ``final``: the text before and after the content of the last message."""
    message = messages[i]
    turn_end = final[1].rstrip("\n ")
    before, after = final if i == len(messages) - 1 else _split(render, messages, i, where)
    begin = _begin(render, messages[:i], text, before, where)
    for name in _function_names(message):
        if name not in text[begin:]:
            raise InputError(
                f"{where}: the tokenizer's chat template does not show the tool call, so there is nothing to train on; "
                "write it as the text of the message, or set a chat template that knows tool calls"
            )
    if message.get("tool_calls") and (i == len(messages) - 1 or not text.endswith(after)):
        suffix = 0 if i == len(messages) - 1 else _common_length(text[::-1], after[::-1])  # what comes after the turn
        stop = len(text) - suffix
        position = text.find(turn_end, begin, stop) if turn_end else -1
        return begin, position + len(turn_end) if position >= 0 else len(text[:stop].rstrip("\n "))
    if not text.endswith(after):
        raise InputError(f"{where}: {_difference('what follows an answer', after, text[begin:])}")
    content = len(text) - len(after)
    end = content + len(after[: _common_length(after, turn_end)].rstrip("\n "))
    if not after.startswith(turn_end):
        end = _whole_tokens(text, content, end, tokens)
    answer = str(message["content"] or "").strip()
    if answer not in text[begin:content] and answer.rpartition("</think>")[2].strip() not in text[begin:content]:
        raise InputError(f"{where}: {_difference('the answer', answer, text[begin:content])}")
    return begin, end


def _function_names(message: Message) -> list[str]:
    """The names of the functions that ``message`` calls."""
    calls = [c for c in message.get("tool_calls") or [] if isinstance(c, Mapping)]
    functions = [c.get("function", c) for c in calls]
    return [str(f["name"]) for f in functions if isinstance(f, Mapping) and f.get("name")]


def _begin(render: Render, earlier: Sequence[Message], text: str, before: str, where: str) -> int:
    """The position in ``text`` of the turn after ``earlier``; ``before``: the rendering up to its content."""
    if not earlier:  # a generation prompt needs a message
        return len(before)
    with_prompt = render(earlier, True)
    if text.startswith(with_prompt):
        return len(with_prompt)
    plain = render(earlier, False)
    header = with_prompt[len(plain) :] if with_prompt.startswith(plain) else ""
    if text.startswith(before):  # the generation prompt opens a block, or renders earlier turns differently
        position = before.rfind(header) if header else -1
        is_header = position >= 0 and not any(
            m["content"] and str(m["content"]).strip() in before[position:] for m in earlier
        )
        return position + len(header) if is_header else len(before)
    common = _common_length(with_prompt, text)
    if common >= len(plain):
        return common
    raise InputError(f"{where}: {_difference('the prompt', with_prompt, text)}")


def _split(render: Render, messages: Sequence[Message], i: int, where: str) -> tuple[str, str]:
    """The rendering before and after the content of message ``i``."""
    marked = render([*messages[:i], {"role": "assistant", "content": MARK}, *messages[i + 1 :]], False)
    if marked.count(MARK) != 1:
        raise InputError(
            f"{where}: the tokenizer's chat template does not show the assistant's answer; cannot label it"
        )
    before, _, after = marked.partition(MARK)
    return before, after


def _common_length(first: str, second: str) -> int:
    """The length of the common beginning of two texts."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _difference(part: str, row_text: str, template_text: str) -> str:
    """The message on two texts that should be equal, with an excerpt of each where they differ."""
    position = max(0, _common_length(row_text, template_text) - EXCERPT // 4)
    excerpts = [repr(text[position : position + EXCERPT]) for text in (row_text, template_text)]
    return (
        f"the tokenizer's chat template renders {part} otherwise than the row has it: {excerpts[0]} in the row, "
        f"{excerpts[1]} in the whole conversation; mend the template, or set chat_template=false"
    )
