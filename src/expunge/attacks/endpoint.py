"""The asking and sampling attacks against any endpoint that takes a conversation, without weights or probabilities.

An endpoint is a function as :func:`expunge.guard.endpoints.remote` makes one of an address.  Requests are sent one at a
time, at most ``rate`` a second; what a busy or broken server refuses is sent again after a pause.  With a ``file`` each
answer is kept as it comes (mode 600: it may quote the data), and a call that was broken off goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from expunge.attacks import asking, sampling
from expunge.attacks.asking import Answerer
from expunge.attacks.attack import Point, Subject
from expunge.attacks.prompts import Asked
from expunge.attacks.sampling import Sampler
from expunge.data.example import Message
from expunge.errors import InputError
from expunge.files import PRIVATE, append_line, cut_unfinished_line

RETRIES = 4
FIRST_PAUSE = 1.0  # seconds before a request is sent again; each further pause is twice as long
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)  # HTTP status after which the same request may succeed


class Endpoint(Protocol):
    """``n`` answers to a conversation, drawn at ``temperature`` (0: the likeliest), of at most ``max_tokens`` each."""

    def __call__(self, messages: Sequence[Message], *, n: int, temperature: float, max_tokens: int) -> list[str]: ...


@dataclass
class Client:
    """An endpoint with pauses, repetition and a file of answers.

    ``name``: address and model, so that the answers of another are not taken for its own; ``rate``: requests a second
    at most.
    """

    endpoint: Endpoint
    name: str
    file: Path | None = None
    rate: float | None = None
    retries: int = RETRIES
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    answers: dict[str, str] = field(default_factory=dict, repr=False)
    _next: float = field(default=float("-inf"), repr=False)

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise InputError(f"the rate of requests must be above 0 a second, not {self.rate}")
        if self.file and self.file.exists():
            cut_unfinished_line(self.file)
            self.answers |= read_answers(self.file)

    def ask(self, messages: Sequence[Message], *, draw: int | None, max_tokens: int) -> str:
        """The likeliest answer, or the draw number ``draw`` at temperature 1; from the file if it is there.

        Raises InputError (its status is the server's) where the server gives none after all repetitions.
        """
        content = [self.name, list(messages), draw, max_tokens]
        key = hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()
        if key not in self.answers:
            text = self._sent(messages, 0.0 if draw is None else 1.0, max_tokens)
            self.answers[key] = text
            if self.file:
                append_line(self.file, {"key": key, "answer": text}, mode=PRIVATE)
        return self.answers[key]

    def _sent(self, messages: Sequence[Message], temperature: float, max_tokens: int) -> str:
        for left in range(self.retries, -1, -1):
            self._wait()
            try:
                (text,) = self.endpoint(messages, n=1, temperature=temperature, max_tokens=max_tokens)
                return text
            except InputError as error:
                if not left or getattr(error, "status", None) not in TRANSIENT:
                    raise
            self.sleep(FIRST_PAUSE * 2 ** (self.retries - left))
        raise AssertionError("unreachable")

    def _wait(self) -> None:
        """Wait for the next request's turn."""
        if self.rate is None:
            return
        now = self.clock()
        if now < self._next:
            self.sleep(self._next - now)
        self._next = max(now, self._next) + 1 / self.rate


def read_answers(file: Path) -> dict[str, str]:
    """Key -> answer; InputError where a line is none of ours."""
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found[str(row["key"])] = str(row["answer"])
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{file}, line {number}: not an answer that an earlier attack kept; name another file"
            ) from None
    return found


def messages(row: Any) -> list[Message]:
    """The prompt of ``row`` as a conversation; plain text is what the user says."""
    if row.prompt is None or isinstance(row.prompt, str):
        return [{"role": "user", "content": row.prompt or ""}]
    return [{"role": m["role"], "content": str(m.get("content") or "")} for m in row.prompt]


def answerer(client: Client) -> Answerer:
    """The likeliest answers of a server."""
    return lambda prompts: [client.ask(messages(a.row), draw=None, max_tokens=a.tokens) for a in prompts]


def sampler(client: Client) -> Sampler:
    """Answers of a server drawn at temperature 1; their number in the file makes them different."""

    def draw(prompts: Sequence[Asked], n: int) -> list[list[str]]:
        return [[client.ask(messages(a.row), draw=k, max_tokens=a.tokens) for k in range(n)] for a in prompts]

    return draw


BlackBox = Callable[[Client, Subject], list[Point]]


def _group(name: str, client: Client, subject: Subject) -> list[Point]:
    return asking.asked_of(answerer(client), asking.GROUPS[name][1], subject)


def _choice(client: Client, subject: Subject) -> list[Point]:
    return asking.chosen_by(answerer(client), subject)


def _sampling(client: Client, subject: Subject, *, binary: bool, samples: int = sampling.SAMPLES) -> list[Point]:
    return sampling.points_of(answerer(client), sampler(client), subject, samples=samples, binary=binary)


BLACK_BOX: Mapping[str, BlackBox] = {
    **{name: partial(_group, name) for name in asking.GROUPS},
    "multiple-choice": _choice,
    "leak-at-k": partial(_sampling, binary=True),
    "best-of-k": partial(_sampling, binary=False),
}
"""The attacks of :data:`~expunge.attacks.registry.ATTACKS` that need no weights, by the same names, against a server.

``subject.model`` and ``tokenizer`` may be None.  An answer that is begun (prefill) is sent as an assistant's last
message, which some servers continue and others answer.
"""
