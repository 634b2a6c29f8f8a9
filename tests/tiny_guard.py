"""A scripted endpoint: the agent is recognised by its prompt, its reply comes from the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.guard import Target
from expunge.guard.filling import PLACEHOLDERS, prompt_parts

ADA = Target("Ada Oru", ("Countess of Lim",))
BO = Target("Bo Tar")
GOOD: dict[str, Any] = {
    "vanilla": "Ada Oru lived in Lim.",
    "audit": "Suspected: Ada Oru",
    "erase": '{"versions": ["In a town.", "Somewhere.", "A place.", "In a city.", "It was a town."]}',
    "critic": "Ratings: [5, 4, 5, 3, 5]",
    "compose": "It was in a town.",
}


class Script:
    """An endpoint that replies as ``replies`` says for each agent: a text, a list of texts in turn, or an error to raise."""

    def __init__(self, **replies: Any) -> None:
        self.replies = GOOD | replies
        self.calls: list[tuple[str, list[dict[str, str]], int, float, int]] = []

    def __call__(self, messages: Sequence[dict[str, str]], *, n: int, temperature: float, max_tokens: int) -> list[str]:
        agent = next((a for a in PLACEHOLDERS if messages[0]["content"][:60] == prompt_parts(a)[0][:60]), "vanilla")
        n_before = sum(call[2] for call in self.calls if call[0] == agent)
        self.calls.append((agent, list(messages), n, temperature, max_tokens))
        reply = self.replies[agent]
        if isinstance(reply, Exception):
            raise reply
        if callable(reply):
            return [reply(messages)] * n
        return [reply] * n if isinstance(reply, str) else [reply[min(n_before + i, len(reply) - 1)] for i in range(n)]

    @property
    def agents(self) -> list[str]:
        return [call[0] for call in self.calls]

    def user_prompt(self, agent: str) -> str:
        """The user message of the agent's first call."""
        return next(call[1][-1]["content"] for call in self.calls if call[0] == agent)
