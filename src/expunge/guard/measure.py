r"""Figures of a guard: how often a target is named, the loss in quality, refusals and costs.

For each set of questions: the share of answers that name a target and of refusals (exact intervals), the mean ROUGE-L recall
against the right answers, calls and seconds of a query (bootstrap intervals).  Mentions and ROUGE are also
computed for the same model unguarded, whose answer is in every trail.

Names are detected by the matcher that also does the last check, so the guarded share is 0 unless that check is broken: it
does not measure what is revealed without a name.  ROUGE on the forget set does.
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
from expunge.guard.targets import Target, mentioned_targets
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
    """The figures of ``n`` questions: of the guarded answers, and (``vanilla_…``) of the unguarded ones."""

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

    Raises InputError for a row of plain text, and if ROUGE can read none of the right answers; call it before a model is
    loaded.
    """
    out = []
    for row in rows:
        if row.prompt is None:
            raise InputError(f"{row.where}: a plain text asks nothing; a row is question/answer or messages")
        prompt = ({"role": "user", "content": row.prompt},) if isinstance(row.prompt, str) else row.prompt
        if prompt[-1]["role"] != "user":
            raise InputError(f"{row.where}: the last message before the answer must be the user's")
        out.append((prompt, row.answer))
    if not any(readable(reference) for _, reference in out):
        raise InputError(
            f"{rows[0].where}: no right answer of the set has a word that ROUGE sees (it reads a-z and 0-9)"
        )
    return out


def warnings(name: str, rows: Sequence[Row]) -> list[str]:
    """Warnings about the figures of the set ``name``."""
    n_unreadable = sum(not readable(row.answer) for row in rows)
    warning = (
        f"{name}: {n_unreadable} of {len(rows)} right answers have no word that ROUGE sees (a-z, 0-9); "
        "ROUGE leaves them out"
    )
    return [warning] if n_unreadable else []


def measure(
    guard: Guard, rows: Sequence[Row], *, each: Callable[[Trail], object] | None = None
) -> tuple[Figures, list[Trail]]:
    """Answer every question once, greedily, and compute the figures; ``each`` is called with every trail as soon as it is
    complete, also that of a failed query.

    Raises InputError as :func:`questions`; EndpointError as :func:`expunge.guard.answer`.
    """
    conversations = questions(rows)
    trails = []
    for messages, _ in conversations:
        try:
            trail = answer(guard, messages)
        except EndpointError as error:
            if each and error.trail:
                each(error.trail)
            raise
        trails.append(trail)
        if each:
            each(trail)
    return figures(trails, [reference for _, reference in conversations], guard.targets, guard.settings.refusal), trails


def figures(trails: Sequence[Trail], references: Sequence[str], targets: Sequence[Target], refusal: str) -> Figures:
    """The figures of finished queries.

    Hand-worked: two queries, one refused after 4 calls, one answered after 1: refusals 1/2, calls 2.5.
    """
    answers = [t.answer or "" for t in trails]
    vanilla = [t.vanilla or "" for t in trails]
    return Figures(
        n=len(trails),
        mentions=_share([bool(mentioned_targets([s], targets)) for s in answers]),
        refusals=_share([normalised(s) == normalised(refusal) for s in answers]),
        rouge=_mean_share(_rouge(references, answers)),
        calls=_mean([t.calls for t in trails]),
        seconds=_mean([t.seconds for t in trails]),
        vanilla_mentions=_share([bool(mentioned_targets([s], targets)) for s in vanilla]),
        vanilla_rouge=_mean_share(_rouge(references, vanilla)),
    )


def table(figures_by_set: Mapping[str, Figures]) -> str:
    """The figures of each set as lines for a person, with their 95 % intervals."""
    lines = []
    for name, f in figures_by_set.items():
        lines.append(f"{name}: {f.n} questions")
        for label, guarded, vanilla in (
            ("answers that name a target", f.mentions, f.vanilla_mentions),
            ("ROUGE-L recall", f.rouge, f.vanilla_rouge),
            ("refusals", f.refusals, None),
            ("calls a query", f.calls, None),
            ("seconds a query", f.seconds, None),
        ):
            unguarded = f"   without guard {_format_figure(vanilla)}" if vanilla else ""
            lines.append(f"  {label:<28}{_format_figure(guarded)}{unguarded}")
    return "\n".join(lines)


def to_json(figures_by_set: Mapping[str, Figures], settings: Settings, targets: int, model: str) -> dict[str, Any]:
    """The figures, the settings and the number of targets; no text of a model's, no target."""
    return {
        "model": model,
        "targets": targets,
        "settings": asdict(settings),
        "figures": {name: f.to_dict() for name, f in figures_by_set.items()},
    }


def write_json(
    figures_by_set: Mapping[str, Figures], settings: Settings, targets: int, model: str, path: str | Path
) -> None:
    """:func:`to_json` as a file."""
    values = to_json(figures_by_set, settings, targets, model)
    try:
        write_json_file(check_file(path), values)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {reason(error)}") from None


def _format_figure(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _rouge(references: Sequence[str], answers: Sequence[str]) -> ArrayLike:
    """Recall of each answer whose right answer has a word that ROUGE sees."""
    pairs = [(r, s) for r, s in zip(references, answers, strict=True) if readable(r)]
    return rouge([r for r, _ in pairs], [s for _, s in pairs])


def _share(hits: Sequence[bool]) -> Figure:
    interval = clopper_pearson(sum(hits), len(hits))
    return Figure(sum(hits) / len(hits), interval.low, interval.high)


def _mean_share(values: ArrayLike) -> Figure:
    interval = bounded_mean(values)
    return Figure(float(np.mean(np.asarray(values, dtype=np.float64))), interval.low, interval.high)


def _mean(values: ArrayLike) -> Figure:
    interval = bootstrap_mean(values)
    return Figure(float(np.mean(np.asarray(values, dtype=np.float64))), interval.low, interval.high)
