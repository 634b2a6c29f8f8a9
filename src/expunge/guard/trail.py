"""The trail of a query: the prompt, reply and parsed value of each agent, and the outcome.

A trail holds the unguarded answer of the model, so it leaks by nature: it is written only if the user asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge import files
from expunge.data.example import Message
from expunge.errors import InputError


@dataclass(frozen=True)
class Step:
    """One turn of one agent: ``replies`` to ``messages``, and ``read``, their parsed value (None if they cannot be parsed).

    The matcher has no messages and no replies; ``read`` is the names of the matched targets.  ``calls``: answers requested
    from a model.
    """

    agent: str
    read: Any
    messages: tuple[Message, ...] = ()
    replies: tuple[str, ...] = ()
    seconds: float = 0.0
    calls: int = 0


@dataclass(frozen=True)
class Trail:
    """One query.  ``outcome``: "answered" (as the model said), "rewritten", "refused", or "failed" (then there is no
    ``answer``); ``reason`` says why and holds no text of the model's; ``suspects``: names of the targets suspected.
    """

    messages: tuple[Message, ...]
    answer: str | None
    outcome: str
    reason: str
    suspects: tuple[str, ...]
    steps: tuple[Step, ...]
    seconds: float

    @property
    def calls(self) -> int:
        """The number of answers requested from a model."""
        return sum(s.calls for s in self.steps)

    @property
    def vanilla(self) -> str | None:
        """The answer of the model before any agent."""
        return next((s.replies[0] for s in self.steps if s.agent == "vanilla" and s.replies), None)


def appender(path: str | Path) -> Callable[[Trail], None]:
    """A function that appends a trail to ``path`` as a line of JSON, in a file that only its owner reads (mode 600).

    Raises InputError, at once, where the file cannot be written.
    """
    path = Path(path)

    @contextmanager
    def as_input_error() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"the log {path} cannot be written: {files.reason(error)}") from None

    def write(trail: Trail) -> None:
        with as_input_error():
            files.append_line(path, asdict(trail) | {"calls": trail.calls}, mode=files.PRIVATE)

    with as_input_error():
        if _is_other(path):
            raise InputError(f"the log {path} holds something other than trails of queries; name another file")
        files.check_appendable(path, mode=files.PRIVATE)
    return write


def _is_other(path: Path) -> bool:
    """Whether a file is there that does not begin with a trail."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with open(path, encoding="utf-8", errors="replace") as stream:
        first = stream.readline()
    try:
        return "outcome" not in json.loads(first)
    except (ValueError, TypeError, RecursionError):
        return True


def format_trail(trail: Trail) -> str:
    """The trail as text: every agent with its reply and the parsed value."""
    lines = []
    for s in trail.steps:
        lines.append(f"[{s.agent}] {s.calls} calls, {s.seconds:.2f} s")
        lines += [f"    {line}" for reply in s.replies for line in reply.splitlines() or [""]]
        if s.agent != "vanilla":
            lines.append(f"  read: {json.dumps(s.read, ensure_ascii=False)}")
    suspects = ", ".join(trail.suspects) or "none"
    lines.append(f"{trail.outcome}: {trail.reason} (suspected: {suspects}; {trail.calls} calls, {trail.seconds:.2f} s)")
    return "\n".join(lines)
