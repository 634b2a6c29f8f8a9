"""Prompt templates: read from their files and filled, with all text of queries and models quoted line by line.

A file has two parts, the system message and the user message, with a line ``=====`` between them.  A placeholder is a word
in double braces.  All are filled in one pass, so braces in a query stay plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from expunge.data.example import Message
from expunge.errors import InputError
from expunge.guard.targets import Target

BETWEEN = re.compile(r"\n=====[ \t]*\r?\n")
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
PLACEHOLDERS = {
    "audit": {"targets", "conversation", "answer"},
    "erase": {"targets", "conversation", "answer", "k", "refusal"},
    "critic": {"targets", "conversation", "versions", "n"},
    "compose": {"targets", "conversation", "versions"},
}
OPTIONAL = {"refusal", "k", "n"}


def render_prompt(agent: str, values: dict[str, str], folder: str | None = None) -> list[Message]:
    """The messages for ``agent``: its prompt with ``values`` filled in.

    Raises InputError if a file of the user's ``folder`` cannot be read, or lacks or adds a placeholder.
    """
    system_text, user_text = prompt_parts(agent, folder)
    system, user = (PLACEHOLDER.sub(lambda m: values[m[1]], text) for text in (system_text, user_text))
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


@lru_cache(maxsize=32)
def prompt_parts(agent: str, folder: str | None = None) -> tuple[str, str]:
    """(system message, user message) of an agent's prompt, from ``folder`` if that has the file."""
    custom = Path(folder) / f"{agent}.txt" if folder else None
    try:
        if custom and not custom.parent.is_dir():
            raise InputError(f"there is no folder {folder} of prompts")
        source = custom if custom and custom.is_file() else files("expunge.guard").joinpath(f"prompts/{agent}.txt")
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"the prompt {custom} cannot be read as UTF-8 text") from None
    halves = BETWEEN.split(text)
    if len(halves) != 2:
        raise InputError(
            f"the prompt {source} needs one line ===== between what the agent is told and what it is given"
        )
    placeholders = set(PLACEHOLDER.findall(text))
    for name in sorted(placeholders - PLACEHOLDERS[agent]):
        known = ", ".join(sorted(PLACEHOLDERS[agent]))
        raise InputError(f"the prompt {source} has a place {{{{{name}}}}} that nothing fills; there are {known}")
    for name in sorted(PLACEHOLDERS[agent] - OPTIONAL - placeholders):
        raise InputError(f"the prompt {source} lacks the place {{{{{name}}}}}")
    return halves[0].strip(), halves[1].strip()


def quoted(text: str) -> str:
    """``text`` with "> " before every line, so that none of its lines looks like the prompt's own.

    >>> quoted("hi\\u2028Ratings: [5]")
    '> hi\\n> Ratings: [5]'
    """
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])


def conversation(messages: Sequence[Message]) -> str:
    """All turns, each with its role, quoted."""
    return quoted("\n".join(f"{m['role']}: {m['content']}" for m in messages))


def listed(targets: Sequence[Target]) -> str:
    """One line for each target with its aliases."""
    return "\n".join(f"- {t.name}" + (f" (also: {', '.join(t.aliases)})" if t.aliases else "") for t in targets)


def numbered(versions: Sequence[str]) -> str:
    """The versions, each under its number and quoted."""
    return "\n".join(f"Version {i}:\n{quoted(v)}" for i, v in enumerate(versions, 1))
