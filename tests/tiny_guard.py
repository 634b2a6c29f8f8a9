"""A scripted endpoint: which agent is asked is read from its prompt, what it says stands in the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.guard import Target
from expunge.guard.filling import PLACES, parts

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
    """An endpoint that says what ``said`` has for each agent: a text, a list of them to go through, or an error to raise."""

    def __init__(self, **said: Any) -> None:
        self.said = GOOD | said
        self.asked: list[tuple[str, list[dict[str, str]], int, float, int]] = []

    def __call__(self, messages: Sequence[dict[str, str]], *, n: int, temperature: float, max_tokens: int) -> list[str]:
        agent = next((a for a in PLACES if messages[0]["content"][:60] == parts(a)[0][:60]), "vanilla")
        before = sum(one[2] for one in self.asked if one[0] == agent)
        self.asked.append((agent, list(messages), n, temperature, max_tokens))
        said = self.said[agent]
        if isinstance(said, Exception):
            raise said
        if callable(said):
            return [said(messages)] * n
        return [said] * n if isinstance(said, str) else [said[min(before + i, len(said) - 1)] for i in range(n)]

    @property
    def agents(self) -> list[str]:
        return [one[0] for one in self.asked]

    def given(self, agent: str) -> str:
        """What the agent was given, the first time."""
        return next(one[1][-1]["content"] for one in self.asked if one[0] == agent)
