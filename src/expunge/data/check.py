"""Checks of the rows before a model is loaded.  Messages name places, never text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from expunge.data import chat, template
from expunge.data.example import Example, Row, evenly
from expunge.errors import InputError
from expunge.forward.view import IGNORE

MAX_PLACES = 3  # places named in one message
MAX_COMPARED = 64  # conversations of a set that are compared with the template's own tokens


def check(
    forget: Sequence[Row],
    retain: Sequence[Row] | None,
    *,
    holdout: Sequence[Row] | None = None,
    tokenizer: Any = None,
    max_length: int | None = None,
    chat_template: bool = True,
    examples: Mapping[str, Sequence[Example]] | None = None,
) -> list[str]:
    """Raise InputError for what cannot be trained on; return a warning for each anomaly.

    ``examples``: the rows as tokens, uncut, by set; they are tokenised with ``tokenizer`` where missing.

    Errors: an empty set; a forget row that is also in the retain or the holdout set; an answer that truncation would
    remove whole.  Warnings: duplicate rows, answers that are cut, a retain set smaller than the forget set.
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
            uncut_examples = (examples or {}).get(name) or [
                uncut(r, tokenizer, chat_template=chat_template) for r in rows
            ]
            warnings += _truncation(rows, uncut_examples, name, max_length)
    return warnings


def uncut(row: Row, tokenizer: Any, *, chat_template: bool = True) -> Example:
    """``row`` as tokens, without truncation."""
    return chat.encode(row, tokenizer, max_length=1 << 30, chat_template=chat_template)


def labelled(examples: Iterable[Example]) -> int:
    """The number of labelled tokens in ``examples``."""
    return sum(y != IGNORE for e in examples for y in e.labels)


def _key(row: Row) -> tuple[str, ...]:
    """The row's texts without regard to case and white space."""
    prompt = row.prompt or ""
    texts = (
        [prompt] if isinstance(prompt, str) else [f"{m['role']} {m['content'] or m.get('tool_calls')}" for m in prompt]
    )
    return tuple(" ".join(t.casefold().split()) for t in (*texts, f"{row.answer}{row.piece or ''}"))


def _no_overlap(forget: Sequence[Row], other_rows: Sequence[Row], name: str, reason: str) -> None:
    places_by_key = {_key(r): r.where for r in other_rows}
    overlap = [(r.where, places_by_key[_key(r)]) for r in forget if _key(r) in places_by_key]
    if overlap:
        places = "; ".join(f"{a} is {b}" for a, b in overlap[:MAX_PLACES])
        raise InputError(
            f"{len(overlap)} forget row(s) also stand in the {name} set ({places}): take them out of one of the two, "
            f"for {reason}"
        )


def _repeats(rows: Sequence[Row], name: str) -> list[str]:
    duplicates = sum(n - 1 for n in Counter(map(_key, rows)).values())
    return [f"{duplicates} row(s) of the {name} set stand there more than once"] if duplicates else []


def _same_question(forget: Sequence[Row], retain: Sequence[Row]) -> list[str]:
    retain_prompts = {_key(r)[:-1] for r in retain if r.prompt is not None}
    shared = [r.where for r in forget if r.prompt is not None and _key(r)[:-1] in retain_prompts]
    if not shared:
        return []
    return [
        f"{len(shared)} forget question(s) are also asked in the retain set, with another answer (first: {shared[0]})"
    ]


def _truncation(rows: Sequence[Row], examples: Sequence[Example], name: str, max_length: int) -> list[str]:
    cut = 0
    for row, example in zip(rows, examples, strict=True):
        labels = example.labels
        scored = [i for i, y in enumerate(labels) if y != IGNORE and i > 0]
        if not scored:
            raise InputError(f"{row.where}: nothing in this row can be scored; a text needs at least two tokens")
        if row.prompt is None:
            continue  # split into pieces, all of which are used
        if scored[0] >= max_length:
            raise InputError(
                f"{row.where}: the prompt alone fills {scored[0]} tokens, so max_length={max_length} would remove the whole "
                "answer; raise max_length or shorten the prompt"
            )
        cut += len(labels) > max_length
    return [f"{cut} answer(s) of the {name} set are cut at max_length={max_length} tokens"] if cut else []


def vocabulary(rows: Sequence[Row], examples: Sequence[Example], tokenizer: Any, size: int | None) -> None:
    """Raise InputError for a token ID that a model with ``size`` embeddings does not have."""
    for row, example in zip(rows, examples, strict=True):
        if size is not None and (largest := max(example.input_ids, default=0)) >= size:
            raise InputError(
                f"{row.where}: the token {tokenizer.decode([largest])!r} has the number {largest}, and the model has "
                f"embeddings for {size}: take the tokenizer that belongs to the model, or save it after "
                "model.resize_token_embeddings(len(tokenizer))"
            )


# -- the chat template ----------------------------------------------------------------------------------------------------
def rendering(rows: Sequence[Row], examples: Sequence[Example], tokenizer: Any, name: str) -> list[str]:
    """Compare the tokens of some conversations with those of the tokenizer's own ``apply_chat_template``.

    Raises InputError, with both, where they differ.  Warns of a system message that the template refuses, and of a
    generation prompt that is not a prefix of the conversation, so that answers are generated from another context.
    """
    indices = [i for i, r in enumerate(rows) if not isinstance(r.prompt, str | None)]
    merged = mismatched = 0
    for i in evenly(indices, MAX_COMPARED):
        row, row_ids = rows[i], list(examples[i].input_ids)
        messages, _ = chat.conversation(row)
        accepted = template.accepted_form(tokenizer, messages, row.tools)
        merged += messages[0]["role"] == "system" != accepted[0]["role"]
        template_ids = template.tokens(tokenizer, accepted, row.tools)
        if row_ids != template_ids[: len(row_ids)]:
            position = next(
                (k for k, (a, b) in enumerate(zip(row_ids, template_ids, strict=False)) if a != b), len(template_ids)
            )
            excerpts = [tokenizer.decode(ids[max(0, position - 8) : position + 8]) for ids in (row_ids, template_ids)]
            raise InputError(
                f"{row.where}: the tokens to be trained are not those of the tokenizer's chat template: {excerpts[0]!r} "
                f"here, {excerpts[1]!r} there; mend the template, or set chat_template=false"
            )
        prompt = chat.prompt_ids(row, tokenizer)
        mismatched += row_ids[: len(prompt)] != prompt
    warnings = []
    if merged:
        warnings.append(
            f"the chat template refuses system messages: those of the {name} set stand at the head of the user's turn"
        )
    if mismatched:
        warnings.append(
            f"the generation prompt of the chat template is not how conversations of the {name} set go on (a thinking "
            "template, say), so the model answers from another place than it is trained at; if the template has a switch, "
            "set it, such as --template-arguments enable_thinking=false"
        )
    return warnings
