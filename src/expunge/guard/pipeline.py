"""One query through the agents of ALU: vanilla, audit, erase, critic, composer, and a last check without a model.

The flow and its parameters are the paper's, with these differences:

- The vanilla agent is the model itself, without a system prompt of ours.
- The default auditor is the alias matcher.  It also checks the conversation, since an answer need not name its subject.
  With ``auditor="model"`` a model checks as well, and a target that either suspects is suspected.
- Where nothing is suspected, the vanilla answer is the answer: one call, or two.  The paper's code copies it k times, to be
  rated and merged.
- Erase, critic and composer see the suspected targets, not the list.  So neither their number nor what they read grows with
  the list; a model as auditor sees at most ``listed`` targets, those that share most words with the conversation and the
  answer.  Beyond that many, a target that is only described, in none of its words, can be missed.
- A version that names any target of the whole list is rated 1 and never merged, an answer that does is refused, whatever
  the agents say.
- A reply that cannot be parsed is requested again, at most ``retries`` times, then the query is refused.  The paper's code
  has no retry.  Ratings are read from the critic's reply without a second call.

Agents Are All You Need for LLM Unlearning, 2025, arXiv:2502.00406.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from expunge.data.example import Message
from expunge.errors import InputError
from expunge.guard import agents
from expunge.guard.endpoints import Endpoint, EndpointError, answers
from expunge.guard.filling import PLACEHOLDERS, prompt_parts
from expunge.guard.settings import Settings
from expunge.guard.targets import Target, checked_target, mentioned_targets, most_likely
from expunge.guard.trail import Step, Trail
from expunge.scorers.mentions import normalised

VARIED = 0.7  # temperature of versions, which should differ, and of retries, which should not repeat the first reply
T = TypeVar("T")


@dataclass(frozen=True)
class Guard:
    """Everything that a query needs; ``agents``: the model of audit, erase, critic and composer, if it is another.

    Raises InputError if a target has no name or a prompt of the user's is invalid.
    """

    endpoint: Endpoint
    targets: tuple[Target, ...]
    settings: Settings = field(default_factory=Settings)
    agents: Endpoint | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError("a guard needs at least one target")
        for i, target in enumerate(self.targets, 1):
            checked_target(target, f"target {i}")
        for agent in PLACEHOLDERS:
            prompt_parts(agent, self.settings.prompts)


def answer(
    guard: Guard, messages: Sequence[Message], *, temperature: float = 0.0, max_tokens: int | None = None
) -> Trail:
    """The answer to a conversation that ends with the user's message, with all steps that led to it.

    ``max_tokens`` is at most the settings'.  An answer that could not be checked is a refusal; ``reason`` says why.

    Raises EndpointError, with ``trail``, if a model gave no answer at all; InputError for a conversation that has no
    question.
    """
    if not messages or messages[-1]["role"] != "user":
        raise InputError("the last message of a conversation must be the user's")
    run = _Run(guard, tuple(messages), time.monotonic())
    try:
        limit = min(max_tokens or guard.settings.max_tokens, guard.settings.max_tokens)
        vanilla = run.ask("vanilla", run.messages, str, temperature=temperature, max_tokens=limit)[0]
        return _guarded(run, vanilla)
    except EndpointError as error:
        error.trail = run.trail(None, "failed", str(error))
        raise


def _guarded(run: _Run, vanilla: str) -> Trail:
    """The trail from the ``vanilla`` answer of the model through the agents to the final answer."""
    settings = run.guard.settings
    suspects = _suspects(run, vanilla)
    if suspects is None:
        return run.refuse("no reply of the auditor could be read")
    if not suspects:
        return run.trail(vanilla, "answered", "nothing is suspected")
    run.suspects = suspects
    versions = _versions(run, vanilla, suspects)
    if not versions:
        return run.refuse("no version could be read in what the eraser wrote")
    mentions_target = [bool(run.match([v])) for v in versions]
    if all(mentions_target):
        return run.refuse("every version names a target")
    critic_messages = agents.critic_prompt(run.messages, versions, suspects, settings)
    ratings = run.ask_until_parsed("critic", critic_messages, partial(agents.read_ratings, n=len(versions)))
    if ratings is None:
        return run.refuse("no reply of the critic could be read")
    final_ratings = [1.0 if mentioned else rating for mentioned, rating in zip(mentions_target, ratings, strict=True)]
    order = sorted(range(len(versions)), key=lambda i: -final_ratings[i])[: settings.j]
    mean = float(np.mean([final_ratings[i] for i in order]))
    if mean < settings.threshold:
        return run.refuse(f"the best versions are rated {mean:.2f}, below {settings.threshold:g}")
    best = [versions[i] for i in order if not mentions_target[i]]
    if all(normalised(v) == normalised(settings.refusal) for v in best):
        return run.refuse("the eraser left nothing to say")
    composed = run.ask_until_parsed(
        "compose", agents.compose_prompt(run.messages, best, suspects, settings), agents.read_answer
    )
    if not composed:
        return run.refuse("the composer wrote nothing")
    if run.match([composed]):
        return run.refuse("the composed answer names a target")
    if normalised(composed) == normalised(settings.refusal):
        return run.refuse("the composer left nothing to say")
    return run.trail(composed, "rewritten", f"versions rated {mean:.2f}")


def _suspects(run: _Run, vanilla: str) -> tuple[Target, ...] | None:
    """The targets that the conversation or the answer may reveal; None if no reply of a model as auditor can be parsed."""
    settings = run.guard.settings
    matched = run.match([*(m["content"] for m in run.messages), vanilla])
    if settings.auditor == "aliases":
        return matched
    texts = [*(m["content"] for m in run.messages), vanilla]
    listed = most_likely(texts, run.guard.targets, settings.listed)
    messages = agents.audit_prompt(run.messages, vanilla, listed, settings)
    audited = run.ask_until_parsed("audit", messages, lambda reply: agents.read_audit(reply, listed), _names)
    return None if audited is None else tuple(dict.fromkeys([*matched, *audited]))


def _versions(run: _Run, vanilla: str, suspects: Sequence[Target]) -> tuple[str, ...]:
    """At most k versions: first all in one reply, then the missing ones each in a reply of its own."""
    settings = run.guard.settings
    versions: list[str] = []
    for attempt in range(settings.retries + 1):
        missing = settings.k - len(versions)
        k, n = (missing, 1) if attempt == 0 else (1, missing)
        erase_messages = agents.erase_prompt(run.messages, vanilla, suspects, k, settings)
        parse = partial(agents.read_versions, k=k)
        versions += chain.from_iterable(run.ask("erase", erase_messages, parse, n=n, temperature=VARIED))
        if len(versions) >= settings.k:
            break
    return tuple(versions)


@dataclass
class _Run:
    """The state of a query: its steps so far."""

    guard: Guard
    messages: tuple[Message, ...]
    started: float
    steps: list[Step] = field(default_factory=list)
    suspects: tuple[Target, ...] = ()

    def ask(
        self,
        agent: str,
        messages: Sequence[Message],
        parse: Callable[[str], T],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int | None = None,
        show: Callable[[T], Any] = lambda value: value,
    ) -> list[T]:
        """The parsed ``n`` replies of an agent; the step stores them as ``show`` formats them."""
        guard, started = self.guard, time.monotonic()
        endpoint = guard.endpoint if agent == "vanilla" else guard.agents or guard.endpoint
        limit = max_tokens or guard.settings.agent_tokens
        try:
            replies = answers(endpoint, messages, n=n, temperature=temperature, max_tokens=limit)
        except EndpointError:
            self.steps.append(Step(agent, None, tuple(messages), (), time.monotonic() - started, n))
            raise
        values = [parse(r) for r in replies]
        step_values = [None if v is None else show(v) for v in values]
        seconds = time.monotonic() - started
        self.steps.append(
            Step(agent, step_values[0] if n == 1 else step_values, tuple(messages), tuple(replies), seconds, n)
        )
        return values

    def ask_until_parsed(
        self,
        agent: str,
        messages: Sequence[Message],
        parse: Callable[[str], T | None],
        show: Callable[[Any], Any] = lambda value: value,
    ) -> T | None:
        """The value of an agent's first reply that can be parsed; None after the last retry."""
        for attempt in range(self.guard.settings.retries + 1):
            value = self.ask(agent, messages, parse, temperature=VARIED if attempt else 0.0, show=show)[0]
            if value not in (None, ""):
                result: T | None = value
                return result
        return None

    def match(self, texts: Sequence[str]) -> tuple[Target, ...]:
        """The targets that ``texts`` name, by the alias matcher."""
        started = time.monotonic()
        matched = mentioned_targets(texts, self.guard.targets)
        self.steps.append(Step("matcher", _names(matched), seconds=time.monotonic() - started))
        return matched

    def refuse(self, reason: str) -> Trail:
        return self.trail(self.guard.settings.refusal, "refused", reason)

    def trail(self, answer_text: str | None, outcome: str, reason: str) -> Trail:
        seconds = time.monotonic() - self.started
        return Trail(
            self.messages, answer_text, outcome, reason, tuple(_names(self.suspects)), tuple(self.steps), seconds
        )


def _names(targets: Sequence[Target]) -> list[str]:
    return [t.name for t in targets]
