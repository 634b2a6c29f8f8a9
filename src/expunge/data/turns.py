"""Where the assistant's turns stand in a conversation as its chat template renders it.

The text is the template's own rendering of the whole conversation.  A turn is what the model itself has to write: what
follows the generation prompt (an empty ``<think></think>`` included), up to the end of the turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from expunge.data.example import Message
from expunge.data.template import MARK
from expunge.errors import InputError

SHOWN = 80  # characters of a rendering in a message
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

    ``begun``: with what the last message begins that is no part of the answer; ``tokens``: texts that are never cut.

    Raises InputError where the template does not show a turn, or shows another.
    """
    whole = render(messages, False)
    final = _split(render, messages, len(messages) - 1, where)
    spans = [_span(render, messages, i, whole, final, where, tokens) for i in turns]
    if begun:
        begin, end = spans[-1]
        at = whole.find(begun, begin, end)
        if at < 0:
            raise InputError(f"{where}: {_difference('how the answer begins', begun, whole[begin:end])}")
        spans[-1] = (at + len(begun), end)
    return whole, spans


def _whole_tokens(text: str, begin: int, end: int, tokens: Iterable[str]) -> int:
    """``end`` of what two ends of turns begin with, so that there is no part in it of a text in ``tokens``.

    What follows a whole token is left out: "<|end|> <|user|>" and "<|end|> <|endoftext|>" both begin with "<|end|>".  Where
    there is none, as in "<|end|>" and "<|return|>", the token is the end of the turn.

    >>> tokens = ["<|end|>", "<|user|>"]
    >>> _whole_tokens("Oru<|end|> <|user|>", 3, 13, tokens), _whole_tokens("Oru<|end|><|user|>", 3, 5, tokens)
    (10, 10)
    """
    parts = [(m.start(), m.end()) for token in tokens for m in re.finditer(re.escape(token), text[begin:])]
    inside = [begin + stop for _, stop in parts if begin + stop <= end]
    across = [begin + stop for start, stop in parts if begin + start < end < begin + stop]
    return max(inside, default=max(across, default=end))


def end_of_turn(render: Render, messages: Sequence[Message], where: str) -> str:
    """What the template writes right after the last message, an assistant's, up to its end-of-turn token."""
    return _split(render, messages, len(messages) - 1, where)[1].rstrip("\n ")


def _span(
    render: Render,
    messages: Sequence[Message],
    i: int,
    whole: str,
    final: tuple[str, str],
    where: str,
    tokens: Sequence[str],
) -> Span:
    """The characters of message ``i`` in ``whole``; ``final``: what stands around the content of the last message."""
    message = messages[i]
    last = final[1].rstrip("\n ")
    before, after = final if i == len(messages) - 1 else _split(render, messages, i, where)
    begin = _begin(render, messages[:i], whole, before, where)
    for name in _called(message):
        if name not in whole[begin:]:
            raise InputError(
                f"{where}: the tokenizer's chat template does not show the tool call, so there is nothing to train on; "
                "write it as the text of the message, or set a chat template that knows tool calls"
            )
    if message.get("tool_calls") and (i == len(messages) - 1 or not whole.endswith(after)):
        rest = 0 if i == len(messages) - 1 else _same(whole[::-1], after[::-1])  # what comes after the turn
        stop = len(whole) - rest
        at = whole.find(last, begin, stop) if last else -1
        return begin, at + len(last) if at >= 0 else len(whole[:stop].rstrip("\n "))
    if not whole.endswith(after):
        raise InputError(f"{where}: {_difference('what follows an answer', after, whole[begin:])}")
    content = len(whole) - len(after)
    end = content + len(after[: _same(after, last)].rstrip("\n "))
    if not after.startswith(last):
        end = _whole_tokens(whole, content, end, tokens)
    said = str(message["content"] or "").strip()
    if said not in whole[begin:content] and said.rpartition("</think>")[2].strip() not in whole[begin:content]:
        raise InputError(f"{where}: {_difference('the answer', said, whole[begin:content])}")
    return begin, end


def _called(message: Message) -> list[str]:
    """The names of the functions that ``message`` calls."""
    calls = [c for c in message.get("tool_calls") or [] if isinstance(c, Mapping)]
    functions = [c.get("function", c) for c in calls]
    return [str(f["name"]) for f in functions if isinstance(f, Mapping) and f.get("name")]


def _begin(render: Render, earlier: Sequence[Message], whole: str, before: str, where: str) -> int:
    """Where the turn after ``earlier`` begins in ``whole``; ``before``: the rendering up to its content."""
    if not earlier:  # no generation prompt to ask for
        return len(before)
    asked = render(earlier, True)
    if whole.startswith(asked):
        return len(asked)
    plain = render(earlier, False)
    header = asked[len(plain) :] if asked.startswith(plain) else ""
    if whole.startswith(before):  # the generation prompt opens something, or earlier turns are shown otherwise in it
        at = before.rfind(header) if header else -1
        own = at >= 0 and not any(m["content"] and str(m["content"]).strip() in before[at:] for m in earlier)
        return at + len(header) if own else len(before)
    same = _same(asked, whole)
    if same >= len(plain):
        return same
    raise InputError(f"{where}: {_difference('the prompt', asked, whole)}")


def _split(render: Render, messages: Sequence[Message], i: int, where: str) -> tuple[str, str]:
    """The rendering before and after the content of message ``i``."""
    marked = render([*messages[:i], {"role": "assistant", "content": MARK}, *messages[i + 1 :]], False)
    if marked.count(MARK) != 1:
        raise InputError(
            f"{where}: the tokenizer's chat template does not show the assistant's answer; cannot label it"
        )
    before, _, after = marked.partition(MARK)
    return before, after


def _same(one: str, other: str) -> int:
    """With how many characters both begin."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _difference(what: str, ours: str, theirs: str) -> str:
    """A sentence on two texts that should be the same, with what each has where they part."""
    at = max(0, _same(ours, theirs) - SHOWN // 4)
    parts = [repr(text[at : at + SHOWN]) for text in (ours, theirs)]
    return (
        f"the tokenizer's chat template renders {what} otherwise than the row has it: {parts[0]} in the row, {parts[1]} in "
        "the whole conversation; mend the template, or set chat_template=false"
    )
