"""Conversations in their usual formats: OpenAI's messages, ShareGPT's from and value, content in parts, tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.data.example import Message
from expunge.errors import InputError

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant",
    "function_call": "assistant", "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
    "prompter": "user", "question": "user", "instruction": "user", "input": "user", "q": "user", "chatbot": "assistant",
    "response": "assistant", "output": "assistant", "a": "assistant", "llm": "assistant", "tool_call": "assistant",
    "tool_response": "tool", "function_response": "tool", "tool_result": "tool",
}  # fmt: skip
PARTS = ("text", "input_text", "output_text")
TEMPLATE_FIELDS = (
    "tool_calls",
    "tool_call_id",
    "name",
    "reasoning_content",
    "thinking",
    "weight",
)  # fields of a message that are passed on to its chat template


def messages(value: Any, where: str, name: str) -> list[Message]:
    """The column ``name`` as messages of role and content; several system messages at the head become one.

    Raises InputError for a value that is not a message, for an unknown role and for content that is no text.
    """
    value = from_json(value)
    if isinstance(value, Mapping) and len(lists := [v for v in value.values() if isinstance(v, list)]) == len(value):
        value = [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=False)]  # as datasets stores them
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError(f"{where}: {name!r} must be a list of messages")
    out = [_message(m, where, name) for m in value]
    while len(out) > 1 and out[0]["role"] == out[1]["role"] == "system":
        out[:2] = [{"role": "system", "content": f"{out[0]['content']}\n\n{out[1]['content']}"}]
    return out


def _message(m: Any, where: str, name: str) -> Message:
    if not isinstance(m, Mapping):
        raise InputError(f"{where}: a message in {name!r} needs a role and a content, this is a {type(m).__name__}")
    role = m.get("role", m.get("from"))
    normalised = str(role).lower().strip(" :<>|#[]")
    if normalised not in ROLES:
        raise InputError(f"{where}: the role {role!r} in {name!r} is not one of {', '.join(dict.fromkeys(ROLES))}")
    extra_fields = {k: m[k] for k in TEMPLATE_FIELDS if m.get(k) not in (None, "", [])}
    if (
        isinstance(called := m.get("function_call"), Mapping) and "tool_calls" not in extra_fields
    ):  # OpenAI's older form
        extra_fields["tool_calls"] = [{"type": "function", "function": dict(called)}]
    if isinstance(extra_fields.get("tool_calls"), Sequence):
        extra_fields["tool_calls"] = [_call(c, where, name) for c in extra_fields["tool_calls"]]
    content = text_of(m.get("content", m.get("value")), where, name)
    if not content.strip() and not extra_fields.get("tool_calls") and ROLES[normalised] != "system":
        raise InputError(f"{where}: a message in {name!r} needs a role and a content that is not empty")
    raw_content = m.get("content", m.get("value"))
    return {"role": ROLES[normalised], "content": None if raw_content is None else content, **extra_fields}


def _call(call: Any, where: str, name: str) -> Any:
    """A tool call, its arguments as an object, which is what templates expect; OpenAI's files hold them as JSON."""
    if not isinstance(call, Mapping):
        raise InputError(f"{where}: a tool call in {name!r} must be an object, this is a {type(call).__name__}")
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except (ValueError, RecursionError):
        return dict(call)


def text_of(content: Any, where: str, name: str) -> str:
    """The text of a content that is text or a list of text parts; empty where it is None.

    >>> text_of([{"type": "text", "text": "Hi"}, "you"], "", "")
    'Hi\\nyou'
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return check_unicode(content, where, name)
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence):
        raise InputError(
            f"{where}: the content of a message in {name!r} must be text, it is a {type(content).__name__}"
        )
    parts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind not in PARTS or not isinstance(text, str):
            raise InputError(f"{where}: a message in {name!r} holds a part of the type {kind!r}; only text can be read")
        parts.append(check_unicode(text, where, name))
    return "\n".join(parts)


def check_unicode(text: str, where: str, name: str) -> str:
    """``text``; InputError where it holds a lone surrogate, which no tokenizer accepts."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        raise InputError(
            f"{where}: the field {name!r} holds half of a character ({half}, a lone surrogate) at place {error.start + 1}; "
            "write the file anew as UTF-8"
        ) from None
    return text


def from_json(value: Any) -> Any:
    """The list or object that ``value`` holds as JSON; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value.tolist() if hasattr(value, "tolist") else value
