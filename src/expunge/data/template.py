"""The tokenizer's chat template: the one place that renders a conversation.

A template may take arguments (``enable_thinking``, ``date_string``).  They are attached to the tokenizer by :func:`use`, so
that training, generation and evaluation render alike.  A template that asks for today's date gets one date for a whole run.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from expunge.data.example import Message
from expunge.errors import InputError

ATTRIBUTE = "_expunge_template"  # the attribute of a tokenizer that holds arguments and date
DATE_FUNCTION = "strftime_now"  # the function that templates call for today's date
Rendering: TypeAlias = tuple[dict[str, Any], datetime.datetime]  # arguments, and the date that templates get as today
PROMPT = "add_generation_prompt"
MARK = "\u241fanswer\u241f"  # placeholder for an answer while a template is rendered
RESERVED = ("messages", "tools", PROMPT, "tokenize")  # set by the renderer itself


def use(tokenizer: Any, arguments: Mapping[str, Any] | None = None) -> Any:
    """``tokenizer``, set to render its chat template with ``arguments`` and the current date.

    ``strftime_now="2026-07-01"`` sets another date.

    Raises InputError for an argument that the template does not mention.
    """
    values = dict(arguments or {})
    template = str(getattr(tokenizer, "chat_template", None) or "")
    for name in values:
        if name in RESERVED:
            raise InputError(f"template_arguments: {name} is set by expunge itself; leave it out")
        if not re.search(rf"\b{re.escape(name)}\b", template):
            problem = "takes no argument of that name" if template else "is missing"
            raise InputError(f"template_arguments: {name} does nothing, the tokenizer's chat template {problem}")
    return attach(tokenizer, (values, _date(values.pop(DATE_FUNCTION, None))))


def attach(tokenizer: Any, rendering: Rendering | None) -> Any:
    """``tokenizer``, set to render with the ``rendering`` of another one, see :func:`attached`."""
    if rendering is not None:
        setattr(tokenizer, ATTRIBUTE, rendering)
    return tokenizer


def described(tokenizer: Any) -> dict[str, Any]:
    """The arguments, and the date if the template uses it, for a record."""
    arguments, date = attached(tokenizer)
    uses_date = DATE_FUNCTION in str(getattr(tokenizer, "chat_template", None) or "")
    return {"arguments": arguments, "date": date.date().isoformat() if uses_date else None}


def render(
    tokenizer: Any, messages: Sequence[Message], where: str, *, generate: bool, tools: Sequence[Any] = ()
) -> str:
    """``messages`` rendered by the template; ``generate``: with the generation prompt.

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
    except Exception as error:  # templates raise exceptions of any type, from Jinja
        for form in alternative_forms(messages):
            try:
                return _rendered(tokenizer, form, generate, tools)
            except Exception:  # the first error is the one to report
                continue
        raise InputError(f"{where}: the tokenizer's chat template refuses the row: {error}") from error


def _rendered(tokenizer: Any, messages: Sequence[Message], generate: bool, tools: Sequence[Any]) -> str:
    """The template's output; if it has no generation prompt of its own, the header of an assistant's message is appended."""
    text = _apply(tokenizer, messages, generate, tools)
    if not generate or PROMPT in str(tokenizer.chat_template):
        return text
    with_answer = _apply(tokenizer, [*messages, {"role": "assistant", "content": MARK}], False, tools)
    header = with_answer[len(text) : with_answer.find(MARK)] if with_answer.startswith(text) else ""
    return text + header if header.strip() else text


def tokens(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
    """The tokens of ``messages`` from the tokenizer's own ``apply_chat_template``, to compare training's with."""
    encoded: Any = _apply(tokenizer, messages, False, tools, tokenize=True)
    ids = encoded["input_ids"] if isinstance(encoded, Mapping) else encoded
    return list(ids[0] if ids and isinstance(ids[0], list) else ids)


def alternative_forms(messages: Sequence[Message]) -> list[list[Message]]:
    """Other forms of ``messages`` for a template that refuses them: the system message merged into the user's turn, the
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


def accepted_form(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[Message]:
    """``messages`` in the form that :func:`render` gives to the template."""
    for form in (list(messages), *alternative_forms(messages)):
        try:
            _apply(tokenizer, form, False, tools)
        except Exception:  # as in render
            continue
        return form
    return list(messages)


def without_system(messages: Sequence[Message]) -> list[Message] | None:
    """``messages`` with the system message merged into the user's turn after it; None if either is missing."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    return [messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}, *messages[2:]]


def _apply(
    tokenizer: Any, messages: Sequence[Message], generate: bool, tools: Sequence[Any], *, tokenize: bool = False
) -> str:
    arguments, date = attached(tokenizer)
    result: str = tokenizer.apply_chat_template(
        [_without_weight(m) for m in messages],
        add_generation_prompt=generate,
        tokenize=tokenize,
        tools=list(tools) or None,
        **({"chat_template": _dated(tokenizer, date, tools)} if DATE_FUNCTION in str(tokenizer.chat_template) else {}),
        **arguments,
    )
    return result


def _dated(tokenizer: Any, date: datetime.datetime, tools: Sequence[Any]) -> str:
    """The chat template with ``date`` in place of its calls for today's."""
    text: str = tokenizer.get_chat_template(None, list(tools) or None)
    return re.sub(rf"{DATE_FUNCTION}\(\s*(['\"])(.*?)\1\s*\)", lambda match: json.dumps(date.strftime(match[2])), text)


def _without_weight(message: Message) -> Message:
    return {k: v for k, v in message.items() if k != "weight"}


def attached(tokenizer: Any) -> Rendering:
    """The arguments and the date that ``tokenizer`` renders with, attached on first use."""
    if not hasattr(tokenizer, ATTRIBUTE):
        setattr(tokenizer, ATTRIBUTE, ({}, datetime.datetime.now()))
    result: Rendering = getattr(tokenizer, ATTRIBUTE)
    return result


def _date(text: Any) -> datetime.datetime:
    try:
        return datetime.datetime.now() if text is None else datetime.datetime.fromisoformat(str(text))
    except ValueError:
        raise InputError(
            f"template_arguments: {DATE_FUNCTION} must be a date such as 2026-07-01, not {text!r}"
        ) from None
