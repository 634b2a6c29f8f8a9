"""A task, what came of it, and how a process carries it out."""

from __future__ import annotations

import contextlib
import io
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from expunge.errors import InputError, RunFailed

ATTEMPTS = 3  # how often a task is started whose process is killed


@dataclass(frozen=True)
class Task:
    """``function(*arguments)`` under a ``name``; in another process the function is found by its module and name, and
    arguments and result are pickled.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Done:
    """A task that ended: its ``value``, or the ``error`` that it failed with, in one sentence.

    ``code``: 0, 2 for what a person has to mend, 1 for any other failure; ``trace``: the traceback, which may quote data;
    ``stopped``: a signal ended it, and it goes on when it is started again; ``seconds`` of the last attempt of ``attempts``.
    """

    name: str
    value: Any = None
    error: str | None = None
    code: int = 0
    trace: str = field(default="", repr=False)
    stopped: bool = False
    seconds: float = 0.0
    attempts: int = 1


def carry_out(task: Task) -> Done:
    """Run ``task`` here; what it raises is in the result, a signal apart."""
    began = time.monotonic()
    said: dict[str, Any]
    try:
        said = {"value": task.function(*task.arguments)}
    except Exception as error:
        said = {"error": _sentence(error), "code": 2 if isinstance(error, InputError) else 1}
        said["trace"] = "".join(traceback.format_exception(error))
    return Done(task.name, seconds=time.monotonic() - began, **said)


def killed(task: Task, attempts: int) -> Done:
    """What came of a task whose process was killed each time."""
    return Done(
        task.name,
        error=f"its process was killed {attempts} times; where memory ran out, run fewer at once (--jobs)",
        code=1,
        attempts=attempts,
    )


def _sentence(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, InputError | RunFailed):
        return first
    return f"{type(error).__name__}{f': {first}' if first else ''}"


class Prefixed(io.TextIOBase):
    """A text stream that writes whole lines to another, each after a prefix.

    >>> out = io.StringIO()
    >>> stream = Prefixed(out, "npo-seed0: ")
    >>> for text in ("half ", "a line\\nand ", "one\\n", "\\n", "rest"): _ = stream.write(text)
    >>> stream.finish()
    >>> out.getvalue()
    'npo-seed0: half a line\\nnpo-seed0: and one\\nnpo-seed0: rest\\n'
    """

    def __init__(self, stream: TextIO, prefix: str):
        self.stream, self.prefix, self.rest = stream, prefix, ""

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Write the lines that ``text`` completes; empty ones are left out."""
        *lines, self.rest = (self.rest + text.replace("\r", "\n")).split("\n")
        if full := [line for line in lines if line.strip()]:
            self.stream.write("".join(f"{self.prefix}{line}\n" for line in full))
            self.stream.flush()
        return len(text)

    def finish(self) -> None:
        """Write the last line, which may lack its end."""
        self.write("\n")


@contextlib.contextmanager
def named_output(name: str) -> Iterator[None]:
    """Within, each line that is printed begins with ``name``, so that those of several tasks are told apart."""
    out, err = Prefixed(sys.stdout, f"{name}: "), Prefixed(sys.stderr, f"{name}: ")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        out.finish()
        err.finish()
