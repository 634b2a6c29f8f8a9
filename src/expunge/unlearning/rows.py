"""The data of a run: the rows of each stream, checked, and their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.data import chat, check, refusals, sources
from expunge.data.example import Example, Row
from expunge.errors import InputError
from expunge.method import Method, entries
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Data:
    """Rows and their tokens, by stream; ``warnings`` of the checks."""

    rows: Mapping[str, list[Row]]
    examples: Mapping[str, list[Example]]
    warnings: list[str]


def load_streams(settings: Recipe, method: Method) -> dict[str, list[Row]]:
    """The rows of the streams that ``method`` reads, alternates included; retain also when it is only measured."""
    rows = {"forget": sources.load_rows(settings.forget, limit=settings.limit)}
    if settings.retain is not None:
        rows["retain"] = sources.load_rows(settings.retain, limit=settings.limit)
    elif "retain" in method.streams:
        raise InputError(needs_retain(method.name))
    if settings.holdout is not None:
        from expunge.training import stopping

        stopping.check(method)
        rows["holdout"] = sources.load_rows(settings.holdout, limit=settings.limit)
    if method.alternate == "generated":
        from expunge.unlearning import alternates as generating

        generating.check(rows["forget"], method.name)  # the model that writes them is not loaded yet
    elif method.alternate:
        rows["alternate"] = alternates(rows["forget"], method, settings.seed)
    return rows


def needs_retain(name: str) -> str:
    """What a person is told who gives the method ``name`` no retain set: ways to have one, and methods that need none."""
    free = [row.name for row in entries().values() if "retain" not in row.streams]
    return (
        f"the method {name} protects a retain set; give rows of what must stay with --retain (rows like the forget rows "
        "that are not to be forgotten; `expunge reveal` writes neutral ones, `expunge release --self-retain 64` makes its "
        f"own), or choose a method that needs none: {', '.join(free)}"
    )


def alternates(forget: Sequence[Row], method: Method, seed: int) -> list[Row]:
    """The forget rows with the answer that is to be preferred: a given one, the method's refusal, or one by (seed, row)."""
    if method.alternate == "refusal":
        return [replace(r, answer=method.refusal or refusals.refusal(seed, i)) for i, r in enumerate(forget)]
    missing = [r.where for r in forget if not r.alternate]
    if missing:
        raise InputError(
            f"{method.name} needs the column 'alternate' in every forget row; {missing[0]} and {len(missing) - 1} others "
            "have none (idk_dpo uses refusals instead)"
        )
    return [replace(r, answer=r.alternate or "") for r in forget]


def encode(raw: Mapping[str, list[Row]], tokenizer: Any, settings: Recipe) -> Data:
    """Check the rows and turn them into tokens."""
    warnings = check.check(
        raw["forget"],
        raw.get("retain"),
        holdout=raw.get("holdout"),
        tokenizer=tokenizer,
        max_length=settings.max_length,
        chat_template=settings.chat_template,
    )
    options: dict[str, Any] = {"max_length": settings.max_length, "chat_template": settings.chat_template}
    examples = {s: [chat.encode(r, tokenizer, **options) for r in rows] for s, rows in raw.items()}
    return Data(raw, examples, warnings)


def with_alternates(data: Data, target: Any, settings: Recipe, folder: Path) -> Data:
    """``data`` with the stream "alternate", of answers that the target model makes up or has made up for this folder."""
    from expunge.unlearning import alternates as generating

    rows, warnings = generating.kept(
        data.rows["forget"], target, folder, seed=settings.seed, chat_template=settings.chat_template
    )
    options: dict[str, Any] = {"max_length": settings.max_length, "chat_template": settings.chat_template}
    examples = [chat.encode(r, target.tokenizer, **options) for r in rows]
    return Data({**data.rows, "alternate": rows}, {**data.examples, "alternate": examples}, [*data.warnings, *warnings])
