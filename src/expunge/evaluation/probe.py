"""What a benchmark asks of a model: prompts, texts to score after each, whether to let it answer.  Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from expunge.data.example import Row


@dataclass(frozen=True)
class Ask:
    """Let the model answer, greedily: at most ``max_new_tokens``, ended by any of ``stop``."""

    max_new_tokens: int = 200
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probe:
    """One prompt.  ``texts``: variant -> an answer to score after it; ``ask``: let the model answer too.

    The right, the paraphrased and the wrong answers of a question stand in one probe, so its prompt is run once.
    """

    part: str
    index: int
    row: Row
    texts: Mapping[str, str] = field(default_factory=dict)
    ask: Ask | None = None


def fingerprint(probes: Iterable[Probe]) -> str:
    """``sha256:`` over all that decides what a model is asked; where rows stood does not count."""
    digest = hashlib.sha256()
    for p in probes:
        ask = [p.ask.max_new_tokens, *p.ask.stop] if p.ask else None
        said = [p.part, p.index, p.row.prompt, p.row.answer, sorted(p.texts.items()), ask]
        digest.update(json.dumps(said, ensure_ascii=False).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"
