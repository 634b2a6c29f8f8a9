"""The rows of an audit: measured forget rows, those the attacker is given, retain and holdout rows, all checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from expunge import record
from expunge.audit.settings import Audit
from expunge.data import check, sources, template
from expunge.data.chat import split_prompt
from expunge.data.columns import normal
from expunge.data.example import Row, evenly
from expunge.errors import InputError
from expunge.models.check import check_files
from expunge.models.locate import resolve
from expunge.models.positions import positions

PARAPHRASED = "paraphrased_question"  # the column of given ones


@dataclass(frozen=True)
class Rewritten:
    """Of a measured forget row: its question in other words, and wrong answers to it; ``given``: by the user."""

    question: str | None = None
    wrong: tuple[str, ...] = ()
    given: bool = False


@dataclass(frozen=True)
class Material:
    """The rows of an audit.

    ``forget``: the measured ones; ``known``: other forget rows, which attacks may learn from; ``retain``: the measured ones,
    ``others``: further retain rows; ``holdout``: rows that no model saw.  ``rewritten``: one a measured forget row.
    ``given``: all rows as they were read, by set.  ``trained_on``: whether the run trained on the measured retain rows, None
    where nobody knows.
    """

    forget: list[Row]
    known: list[Row]
    retain: list[Row]
    others: list[Row]
    holdout: list[Row]
    rewritten: list[Rewritten]
    given: Mapping[str, list[Row]]
    warnings: list[str] = field(default_factory=list)
    trained_on: bool | None = None
    max_length: int = 512

    @property
    def wrong(self) -> bool:
        """Whether enough rows have a wrong answer for figures of them."""
        return sum(bool(r.wrong) for r in self.rewritten) >= max(2, len(self.forget) // 4)

    def asked_otherwise(self) -> dict[int, Row]:
        """Number of a measured forget row -> the row with its question in other words, where there is one."""
        return {
            i: with_question(self.forget[i], r.question) for i, r in enumerate(self.rewritten) if r.question is not None
        }


def read(settings: Audit, *, apart: bool = False) -> Material:
    """The rows of ``settings``, checked before a model is loaded; ``apart``: set rows aside for the attacker.

    Raises InputError as :func:`expunge.data.check.check` does, and where too few rows would be measured.
    """
    warnings: list[str] = []
    given = {
        name: sources.load_rows(
            source,
            limit=settings.limit,
            columns=settings.columns,
            assistant_turns=settings.assistant_turns,
            warnings=warnings,
        )
        for name in ("forget", "retain", "holdout")
        if (source := getattr(settings, name)) is not None
    }
    warnings += [w for w in check.check(given["forget"], given.get("retain"), holdout=given.get("holdout"))
                 if "seen more often" not in w]  # fmt: skip
    forget, known = split(len(given["forget"]), settings.rows, settings.known if apart else 0.0)
    if len(forget) < 2:
        raise InputError(
            f"the forget set has {len(given['forget'])} row(s), of which {len(forget)} would be measured; give at least 2"
        )
    retain, others, trained_on = _retain(given.get("retain", []), settings)
    asked = given_questions(settings)
    rewritten = [
        Rewritten(asked.get(i), wrong := given["forget"][i].perturbed, bool(wrong or asked.get(i))) for i in forget
    ]
    most = positions(settings.model, trust_remote_code=settings.trust_remote_code) or settings.max_length
    return Material(
        [given["forget"][i] for i in forget],
        [given["forget"][i] for i in known],
        retain,
        others,
        evenly(given.get("holdout", []), settings.rows),
        rewritten,
        given,
        list(dict.fromkeys(warnings)),
        trained_on,
        min(most, settings.max_length),
    )


def check_models(settings: Audit) -> None:
    """Raise InputError for a model that cannot be loaded, before one is."""
    for name in (settings.model, settings.target, settings.retrained, settings.base):
        if name:
            check_files(resolve(name), trust_remote_code=settings.trust_remote_code)


def split(n: int, rows: int, known: float) -> tuple[list[int], list[int]]:
    """(measured, known to the attacker) of ``range(n)``, both evenly spread; at most ``rows`` are measured.

    >>> split(8, 40, 0.25), split(8, 3, 0.0)
    (([0, 1, 2, 4, 5, 6], [3, 7]), ([1, 4, 6], []))
    """
    aside = evenly(range(n), math.floor(n * known))
    rest = [i for i in range(n) if i not in set(aside)]
    return evenly(rest, rows), aside


def _retain(rows: list[Row], settings: Audit) -> tuple[list[Row], list[Row], bool | None]:
    """(measured, others, whether the run trained on them) of the retain rows.

    Of a run with ``keep`` and no rows for it the measured ones are those that it took away from training.
    """
    if not rows:
        return [], [], None
    said = record.read(settings.run) if settings.run else {}
    data = said.get("data") or {}
    same = (data.get("retain") or {}).get("source") == str(settings.retain)
    probed = (data.get("keep_rows") or {}).get("source") == str(settings.retain)
    if probed and same and settings.limit is None:
        from expunge.training import utility

        trained, apart = utility.split(len(rows), said.get("seed") or 0)
        measured = evenly(apart, settings.rows)
        return [rows[i] for i in measured], [rows[i] for i in trained], False
    taken = evenly(range(len(rows)), settings.rows)
    others = [rows[i] for i in range(len(rows)) if i not in set(taken)]
    return [rows[i] for i in taken], others, True if same else None


def given_questions(settings: Audit) -> dict[int, str]:
    """Number of a forget row -> the question in other words that its file gives in the column ``paraphrased_question``."""
    out: dict[int, str] = {}
    for i, (_, raw) in enumerate(sources.raw(settings.forget, "train", [])):
        if settings.limit is not None and i >= settings.limit:
            break
        if isinstance(raw, Mapping):
            text = next((v for k, v in raw.items() if normal(k) == PARAPHRASED), None)
            if isinstance(text, str) and text.strip():
                out[i] = text.strip()
    return out


def with_question(row: Row, text: str) -> Row:
    """``row`` with ``text`` as the last thing the user says."""
    if row.prompt is None or isinstance(row.prompt, str):
        return replace(row, prompt=text)
    last = max(i for i, m in enumerate(row.prompt) if m["role"] == "user")
    prompt = tuple({**m, "content": text} if i == last else m for i, m in enumerate(row.prompt))
    return replace(row, prompt=prompt)


def asked(rows: Sequence[Row]) -> list[Row]:
    """``rows`` as they are asked: a plain text is cut in two."""
    return [split_prompt(row) for row in rows]


def use(tokenizer: Any, settings: Audit) -> None:
    """From here on ``tokenizer`` renders its chat template as ``settings`` says."""
    template.use(tokenizer, settings.template_arguments if settings.chat_template else {})


def data_source(source: Any) -> str:
    """Where rows came from, for the record."""
    return str(source) if isinstance(source, str | Path) else f"{type(source).__name__} in memory"
