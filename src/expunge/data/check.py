"""What must be right about the rows before a model is loaded.  Messages name places, never text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from expunge.data import chat
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.forward.view import IGNORE

SHOWN = 3  # places named in one message


def check(
    forget: Sequence[Row],
    retain: Sequence[Row] | None,
    *,
    holdout: Sequence[Row] | None = None,
    tokenizer: Any = None,
    max_length: int | None = None,
    chat_template: bool = True,
) -> list[str]:
    """Raise InputError for what cannot be trained on; return a sentence for each thing that looks odd.

    Errors: an empty set; a forget row that also stands in the retain or the holdout set; an answer that truncation would
    remove whole.  Warnings: rows that stand twice, answers that are cut, a retain set smaller than the forget set.
    """
    if not forget:
        raise InputError("the forget set is empty")
    warnings = _repeats(forget, "forget")
    if retain is not None:
        if not retain:
            raise InputError("the retain set is empty")
        _no_overlap(forget, retain, "retain", "a model cannot forget and keep the same row")
        warnings += _repeats(retain, "retain") + _same_question(forget, retain)
        if len(retain) < len(forget):
            warnings.append(
                f"the retain set ({len(retain)} rows) is smaller than the forget set ({len(forget)}): "
                "each retain row is seen more often than each forget row"
            )
    if holdout is not None:
        if not holdout:
            raise InputError("the holdout set is empty")
        _no_overlap(forget, holdout, "holdout", "the holdout set is text that the model never saw")
    if tokenizer is not None and max_length is not None:
        for name, rows in (("forget", forget), ("retain", retain or ()), ("holdout", holdout or ())):
            warnings += _truncation(rows, name, tokenizer, max_length, chat_template)
    return warnings


def _key(row: Row) -> tuple[str, ...]:
    """The row's texts without regard to case and white space."""
    prompt = row.prompt or ""
    texts = [prompt] if isinstance(prompt, str) else [m["role"] + " " + m["content"] for m in prompt]
    return tuple(" ".join(t.casefold().split()) for t in (*texts, row.answer))


def _no_overlap(forget: Sequence[Row], other: Sequence[Row], name: str, why: str) -> None:
    kept = {_key(r): r.where for r in other}
    both = [(r.where, kept[_key(r)]) for r in forget if _key(r) in kept]
    if both:
        places = "; ".join(f"{a} is {b}" for a, b in both[:SHOWN])
        raise InputError(
            f"{len(both)} forget row(s) also stand in the {name} set ({places}): take them out of one of the two, "
            f"for {why}"
        )


def _repeats(rows: Sequence[Row], name: str) -> list[str]:
    extra = sum(n - 1 for n in Counter(map(_key, rows)).values())
    return [f"{extra} row(s) of the {name} set stand there more than once"] if extra else []


def _same_question(forget: Sequence[Row], retain: Sequence[Row]) -> list[str]:
    asked = {_key(r)[:-1] for r in retain if r.prompt is not None}
    both = [r.where for r in forget if r.prompt is not None and _key(r)[:-1] in asked]
    if not both:
        return []
    return [f"{len(both)} forget question(s) are also asked in the retain set, with another answer (first: {both[0]})"]


def _truncation(rows: Sequence[Row], name: str, tokenizer: Any, max_length: int, chat_template: bool) -> list[str]:
    cut = 0
    for row in rows:
        whole = chat.encode(row, tokenizer, max_length=1 << 30, chat_template=chat_template).labels
        scored = [i for i, y in enumerate(whole) if y != IGNORE and i > 0]
        if not scored:
            raise InputError(f"{row.where}: nothing in this row can be scored; a text needs at least two tokens")
        if scored[0] >= max_length:
            raise InputError(
                f"{row.where}: the prompt alone fills {scored[0]} tokens, so max_length={max_length} would remove the whole "
                "answer; raise max_length or shorten the prompt"
            )
        cut += len(whole) > max_length
    return [f"{cut} answer(s) of the {name} set are cut at max_length={max_length} tokens"] if cut else []
