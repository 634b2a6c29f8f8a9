"""What decides how a query is guarded, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.errors import InputError, nearest

AUDITORS = ("aliases", "model")
REFUSAL = "I'm sorry, but I can't help with that question."


@dataclass(frozen=True)
class Settings:
    """ALU's parameters and ours.

    ``k`` versions are written, the ``j`` best of them are merged if their mean rating (1 to 5) reaches ``threshold``, else
    the answer is ``refusal``.  ``auditor``: who suspects a target, the alias matcher alone or a model too.  ``retries``: how
    often an agent is asked again where its reply cannot be read.  ``listed``: how many targets a prompt lists at most.
    ``max_tokens`` of an answer, ``agent_tokens`` of what an agent writes.  ``prompts``: a folder whose files stand in for
    those in ``guard/prompts``.

    k = 5, j = 3 and threshold = 4 are those of the paper's code.
    """

    k: int = 5
    j: int = 3
    threshold: float = 4.0
    auditor: str = "aliases"
    retries: int = 2
    listed: int = 50
    max_tokens: int = 256
    agent_tokens: int = 1024
    refusal: str = REFUSAL
    prompts: str | None = None

    def __post_init__(self) -> None:
        if self.auditor not in AUDITORS:
            near = nearest(self.auditor, AUDITORS)
            raise InputError(f"there is no auditor {self.auditor!r}{near}; there are {' and '.join(AUDITORS)}")
        for name, least in (("k", 1), ("j", 1), ("retries", 0), ("listed", 1), ("max_tokens", 1), ("agent_tokens", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.j > self.k:
            raise InputError(f"j = {self.j} versions cannot be the best of k = {self.k}; give j <= k")
        if not 1 <= self.threshold <= 5:
            raise InputError(f"threshold is a rating from 1 to 5, not {self.threshold}")
        if not self.refusal.strip():
            raise InputError("the refusal is empty; say what a refused query is answered")
