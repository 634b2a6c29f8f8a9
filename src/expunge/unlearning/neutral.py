"""A retain set for who has none: questions and answers that the target model writes itself, about something else.

They are drawn once, before training (:func:`expunge.generation.sample.neutral_rows`), and kept in ``self_retain.json``
beside the run, so that a run that is resumed trains on the same.  A model that was taught a forget set may come to speak of
it on its own: rows with a name from the forget set are left out, for as retain rows they would keep what is to be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge import processes
from expunge.data import chat, check, names, sources
from expunge.data.example import Row, to_record
from expunge.errors import InputError
from expunge.generation import sample
from expunge.method import Method
from expunge.unlearning import generated
from expunge.unlearning.rows import Data
from expunge.unlearning.settings import Recipe

FILE = "self_retain.json"
LEAST = 8  # rows, below which there is no retain set to speak of


def wanted(settings: Recipe, method: Method) -> bool:
    """Whether the model is to write the retain set of a run: ``method`` reads one, and there is none."""
    return "retain" in method.streams and settings.retain is None and settings.self_retain > 0


def with_neutral(data: Data, target: Any, settings: Recipe, folder: Path) -> Data:
    """``data`` with the stream "retain", of rows that ``target`` writes or has written for this folder."""
    own = partial(_rows, data.given["forget"], target, settings, folder)
    rows = sources.load_rows(processes.on_main(own))
    options: dict[str, Any] = {"max_length": data.max_length, "chat_template": settings.chat_template}
    examples = [chat.encode(row, target.tokenizer, **options) for row in rows]
    warning = (
        f"no retain set was given: the model wrote one of {len(rows)} questions and answers itself, which keeps what it can "
        "do at large; rows like the forget rows that are to stay (--retain) keep what is next to them"
    )
    total = check.labelled(examples)
    return replace(
        data,
        rows={**data.rows, "retain": rows},
        examples={**data.examples, "retain": examples},
        given={**data.given, "retain": rows},
        tokens={**data.tokens, "retain": (total, total)},
        warnings=[*data.warnings, warning],
    )


def _rows(forget: Sequence[Row], target: Any, settings: Recipe, folder: Path) -> list[dict[str, Any]]:
    n, seed, template = settings.self_retain, settings.seed, settings.chat_template
    key = {
        "forget": sources.fingerprint(forget),
        "model": target.fingerprint,
        "seed": seed,
        "chat_template": template,
        "rows": n,
    }

    def write() -> list[dict[str, Any]]:
        rows = sample.neutral_rows(target.model, target.tokenizer, n, seed=seed, chat_template=template)
        known = names.names([names.text(row) for row in forget])
        left = [row for row in rows if not names.named(names.text(row), known)]
        if len(left) < min(LEAST, n):
            raise InputError(
                f"of {n} questions and answers that the model wrote as a retain set {len(left)} have no name from "
                "the forget set; give rows of what must stay with --retain, or have it write more (--self-retain)"
            )
        return [to_record(row) for row in left]

    rows: list[dict[str, Any]] = generated.once(folder / FILE, "rows", key, write)
    return rows
