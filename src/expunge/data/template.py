"""The tokenizer's chat template: the one place that renders a conversation.

A template may take arguments (``enable_thinking``, ``date_string``).  They are attached to the tokenizer by :func:`use`, so
that training, generation and evaluation render alike.  A template that asks for today's date gets one date a run.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from expunge.data.example import Message
from expunge.errors import InputError

NAME = "_expunge_template"  # the attribute of a tokenizer that holds arguments and date
CLOCK = "strftime_now"  # what templates call for today's date
Rendering: TypeAlias = tuple[dict[str, Any], datetime.datetime]  # arguments, and what a template takes for today
PROMPT = "add_generation_prompt"
MARK = "\u241fanswer\u241f"  # stands for an answer while a template is rendered
OWN = ("messages", "tools", PROMPT, "tokenize")  # given by the renderer itself


def use(tokenizer: Any, arguments: Mapping[str, Any] | None = None) -> Any:
    """``tokenizer``, which from now on renders its chat template with ``arguments`` and with the date of this moment.

    ``strftime_now="2026-07-01"`` is that date for a template that asks for today's.

    Raises InputError for an argument that the template does not mention.
    """
    given = dict(arguments or {})
    template = str(getattr(tokenizer, "chat_template", None) or "")
    for name in given:
        if name in OWN:
            raise InputError(f"template_arguments: {name} is set by expunge itself; leave it out")
        if not re.search(rf"\b{re.escape(name)}\b", template):
            what = "takes no argument of that name" if template else "is missing"
            raise InputError(f"template_arguments: {name} does nothing, the tokenizer's chat template {what}")
    return attach(tokenizer, (given, _date(given.pop(CLOCK, None))))


def attach(tokenizer: Any, rendering: Rendering | None) -> Any:
    """``tokenizer``, which renders as the one that ``rendering`` was :func:`attached` to."""
    if rendering is not None:
        setattr(tokenizer, NAME, rendering)
    return tokenizer


def described(tokenizer: Any) -> dict[str, Any]:
    """The arguments, and the date where the template asks for today's, as a record holds them."""
    arguments, date = attached(tokenizer)
    asks = CLOCK in str(getattr(tokenizer, "chat_template", None) or "")
    return {"arguments": arguments, "date": date.date().isoformat() if asks else None}


def render(
    tokenizer: Any, messages: Sequence[Message], where: str, *, generate: bool, tools: Sequence[Any] = ()
) -> str:
    """``messages`` as the template writes them; ``generate``: with the beginning of the assistant's next turn.

    A template that refuses the role "system" gets that message at the head of the first user's.

    Raises InputError where there is no template, or it refuses the conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{where}: the row is a conversation, but the tokenizer has no chat template; "
            "set chat_template=false (of bench: --no-chat-template) for a plain 'Question: … Answer: …' form"
        )
    try:
        return _rendered(tokenizer, messages, generate, tools)
    except Exception as error:  # templates raise what they like, from Jinja
        for other in others(messages):
            try:
                return _rendered(tokenizer, other, generate, tools)
            except Exception:  # the first complaint is the one that helps
                continue
        raise InputError(f"{where}: the tokenizer's chat template refuses the row: {error}") from error


def _rendered(tokenizer: Any, messages: Sequence[Message], generate: bool, tools: Sequence[Any]) -> str:
    """As the template writes it; of one without a generation prompt with what stands before an assistant's message."""
    text = _apply(tokenizer, messages, generate, tools)
    if not generate or PROMPT in str(tokenizer.chat_template):
        return text
    answered = _apply(tokenizer, [*messages, {"role": "assistant", "content": MARK}], False, tools)
    header = answered[len(text) : answered.find(MARK)] if answered.startswith(text) else ""
    return text + header if header.strip() else text


def tokens(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
    """The tokens of ``messages`` as the tokenizer itself gives them, which is what training is compared with."""
    given: Any = _apply(tokenizer, messages, False, tools, tokenize=True)
    found = given["input_ids"] if isinstance(given, Mapping) else given
    return list(found[0] if found and isinstance(found[0], list) else found)


def others(messages: Sequence[Message]) -> list[list[Message]]:
    """``messages`` as a template may take them that refuses them as they are: a system message in the user's turn, the
    arguments of tool calls as JSON text.
    """
    merged = without_system(messages)
    as_text = [_text_calls(m) for m in messages]
    calls = [as_text] if as_text != list(messages) else []
    return [*([merged] if merged else []), *calls, *([[_text_calls(m) for m in merged]] if merged and calls else [])]


def _text_calls(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        return message
    out = []
    for call in calls:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and not isinstance(function.get("arguments"), str | None):
            call = {
                **call,
                "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)},
            }
        out.append(call)
    return {**message, "tool_calls": out}


def taken(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[Message]:
    """``messages`` as :func:`render` gives them to the template."""
    for form in (list(messages), *others(messages)):
        try:
            _apply(tokenizer, form, False, tools)
        except Exception:  # as in render
            continue
        return form
    return list(messages)


def without_system(messages: Sequence[Message]) -> list[Message] | None:
    """``messages`` with the system message at the head of the user's turn after it; None where there are not both."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    return [messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}, *messages[2:]]


def _apply(
    tokenizer: Any, messages: Sequence[Message], generate: bool, tools: Sequence[Any], *, tokenize: bool = False
) -> str:
    arguments, date = attached(tokenizer)
    result: str = tokenizer.apply_chat_template(
        [_shown(m) for m in messages],
        add_generation_prompt=generate,
        tokenize=tokenize,
        tools=list(tools) or None,
        **({"chat_template": _dated(tokenizer, date, tools)} if CLOCK in str(tokenizer.chat_template) else {}),
        **arguments,
    )
    return result


def _dated(tokenizer: Any, date: datetime.datetime, tools: Sequence[Any]) -> str:
    """The chat template with ``date`` where it asks for today's."""
    text: str = tokenizer.get_chat_template(None, list(tools) or None)
    return re.sub(rf"{CLOCK}\(\s*(['\"])(.*?)\1\s*\)", lambda found: json.dumps(date.strftime(found[2])), text)


def _shown(message: Message) -> Message:
    return {k: v for k, v in message.items() if k != "weight"}


def attached(tokenizer: Any) -> Rendering:
    """The arguments and the date that ``tokenizer`` renders with."""
    if not hasattr(tokenizer, NAME):
        setattr(tokenizer, NAME, ({}, datetime.datetime.now()))
    result: Rendering = getattr(tokenizer, NAME)
    return result


def _date(text: Any) -> datetime.datetime:
    try:
        return datetime.datetime.now() if text is None else datetime.datetime.fromisoformat(str(text))
    except ValueError:
        raise InputError(f"template_arguments: {CLOCK} must be a date such as 2026-07-01, not {text!r}") from None
