r"""What a guard does, in figures: how often a target is named, what is lost, what is refused, and what it costs.

For each set of questions: the share of answers that name a target and of refusals (exact intervals), the mean ROUGE-L recall
against the right answers, calls and seconds of a query (bootstrap intervals).  Mentions and ROUGE are given too for the same
model unguarded; every trail holds that answer.

Names are found by the matcher that also makes the last check, so the guarded share is 0 unless that check is broken: it says
nothing about what is told without a name.  ROUGE on the forget set looks at that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from expunge.data.example import Message, Row
from expunge.errors import InputError
from expunge.evaluation.metrics.rouge import readable, rouge
from expunge.files import check_file, reason
from expunge.files import write_json as write_json_file
from expunge.guard.endpoints import EndpointError
from expunge.guard.pipeline import Guard, answer
from expunge.guard.settings import Settings
from expunge.guard.targets import Target, found
from expunge.guard.trail import Trail
from expunge.scorers.mentions import normalised
from expunge.stats import bootstrap_mean, bounded_mean, clopper_pearson


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """A set of ``n`` questions: guarded, and (``vanilla_…``) what the model said before."""

    n: int
    mentions: Figure
    refusals: Figure
    rouge: Figure
    calls: Figure
    seconds: Figure
    vanilla_mentions: Figure
    vanilla_rouge: Figure

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)


def questions(rows: Sequence[Row]) -> list[tuple[tuple[Message, ...], str]]:
    """(conversation, right answer) of each row.

    Raises InputError for a row of plain text, and where ROUGE can read none of the right answers; so ask this first.
    """
    out = []
    for row in rows:
        if row.prompt is None:
            raise InputError(f"{row.where}: a plain text asks nothing; a row is question/answer or messages")
        prompt = ({"role": "user", "content": row.prompt},) if isinstance(row.prompt, str) else row.prompt
        if prompt[-1]["role"] != "user":
            raise InputError(f"{row.where}: the last message before the answer must be the user's")
        out.append((prompt, row.answer))
    if not any(readable(right) for _, right in out):
        raise InputError(
            f"{rows[0].where}: no right answer of the set has a word that ROUGE sees (it reads a-z and 0-9)"
        )
    return out


def warnings(name: str, rows: Sequence[Row]) -> list[str]:
    """What a reader of the figures of the set ``name`` is to be warned of."""
    odd = sum(not readable(row.answer) for row in rows)
    said = f"{name}: {odd} of {len(rows)} right answers have no word that ROUGE sees (a-z, 0-9); ROUGE leaves them out"
    return [said] if odd else []


def measure(
    guard: Guard, rows: Sequence[Row], *, each: Callable[[Trail], object] | None = None
) -> tuple[Figures, list[Trail]]:
    """Ask every question once, greedily, and reduce; ``each`` sees a trail as soon as it is there, that of
    a query that failed too.

    Raises InputError as :func:`questions`; EndpointError as :func:`expunge.guard.answer`.
    """
    asked = questions(rows)
    trails = []
    for messages, _ in asked:
        try:
            trail = answer(guard, messages)
        except EndpointError as error:
            if each and error.trail:
                each(error.trail)
            raise
        trails.append(trail)
        if each:
            each(trail)
    return figures(trails, [right for _, right in asked], guard.targets, guard.settings.refusal), trails


def figures(trails: Sequence[Trail], right: Sequence[str], targets: Sequence[Target], refusal: str) -> Figures:
    """The figures of queries that were asked before.

    Hand-worked: two queries, one refused after 4 calls, one answered after 1: refusals 1/2, calls 2.5.
    """
    shown = [t.answer or "" for t in trails]
    vanilla = [t.vanilla or "" for t in trails]
    return Figures(
        n=len(trails),
        mentions=_share([bool(found([s], targets)) for s in shown]),
        refusals=_share([normalised(s) == normalised(refusal) for s in shown]),
        rouge=_mean_share(_rouge(right, shown)),
        calls=_mean([t.calls for t in trails]),
        seconds=_mean([t.seconds for t in trails]),
        vanilla_mentions=_share([bool(found([s], targets)) for s in vanilla]),
        vanilla_rouge=_mean_share(_rouge(right, vanilla)),
    )


def table(found: Mapping[str, Figures]) -> str:
    """The figures of each set as lines for a person, with their 95 % intervals."""
    lines = []
    for name, f in found.items():
        lines.append(f"{name}: {f.n} questions")
        for label, guarded, vanilla in (
            ("answers that name a target", f.mentions, f.vanilla_mentions),
            ("ROUGE-L recall", f.rouge, f.vanilla_rouge),
            ("refusals", f.refusals, None),
            ("calls a query", f.calls, None),
            ("seconds a query", f.seconds, None),
        ):
            before = f"   without guard {_shown(vanilla)}" if vanilla else ""
            lines.append(f"  {label:<28}{_shown(guarded)}{before}")
    return "\n".join(lines)


def to_json(found: Mapping[str, Figures], settings: Settings, targets: int, model: str) -> dict[str, Any]:
    """The figures, the settings and the number of targets; no text of a model's, no target."""
    return {
        "model": model,
        "targets": targets,
        "settings": asdict(settings),
        "figures": {name: f.to_dict() for name, f in found.items()},
    }


def write_json(found: Mapping[str, Figures], settings: Settings, targets: int, model: str, path: str | Path) -> None:
    """:func:`to_json` as a file."""
    said = to_json(found, settings, targets, model)
    try:
        write_json_file(check_file(path), said)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {reason(error)}") from None


def _shown(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _rouge(right: Sequence[str], said: Sequence[str]) -> ArrayLike:
    """Recall of each answer whose right answer has a word that ROUGE sees."""
    pairs = [(r, s) for r, s in zip(right, said, strict=True) if readable(r)]
    return rouge([r for r, _ in pairs], [s for _, s in pairs])


def _share(hits: Sequence[bool]) -> Figure:
    within = clopper_pearson(sum(hits), len(hits))
    return Figure(sum(hits) / len(hits), within.low, within.high)


def _mean_share(values: ArrayLike) -> Figure:
    within = bounded_mean(values)
    return Figure(float(np.mean(np.asarray(values, dtype=np.float64))), within.low, within.high)


def _mean(values: ArrayLike) -> Figure:
    within = bootstrap_mean(values)
    return Figure(float(np.mean(np.asarray(values, dtype=np.float64))), within.low, within.high)
