"""The data of a run: the rows of each stream, checked, and their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge import processes
from expunge.data import chat, check, pieces, refusals, sources, template
from expunge.data.example import Example, Row
from expunge.errors import InputError
from expunge.method import Method, entries
from expunge.models.check import vocabulary
from expunge.models.locate import resolve
from expunge.models.positions import positions
from expunge.unlearning.settings import Recipe


@dataclass(frozen=True)
class Data:
    """Rows and their tokens, by stream; ``warnings`` of the checks.

    ``given``: the rows as they were read, ``rows``: the same with long texts in pieces; ``tokens``: of each set, those to be
    labelled and how many of them are; ``rendering``: how the tokenizer renders conversations; ``max_length``: the run's, or
    the model's own where that is less.
    """

    rows: Mapping[str, list[Row]]
    examples: Mapping[str, list[Example]]
    warnings: list[str]
    given: Mapping[str, list[Row]] = field(default_factory=dict)
    tokens: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    rendering: template.Rendering | None = None
    max_length: int | None = None


def load(source: Any, settings: Recipe, warnings: list[str] | None = None) -> list[Row]:
    """The rows of one set, read as ``settings`` says."""
    return sources.load_rows(
        source,
        limit=settings.limit,
        columns=settings.columns,
        assistant_turns=settings.assistant_turns,
        warnings=warnings,
    )


def load_streams(settings: Recipe, method: Method, warnings: list[str] | None = None) -> dict[str, list[Row]]:
    """The rows of the streams that ``method`` reads, alternates included; retain also when it is only measured.

    A retain set that the model is to write is not among them (:mod:`expunge.unlearning.neutral`).
    """
    if settings.retain is None and "retain" in method.streams and not settings.self_retain:
        raise InputError(needs_retain(method.name))
    if settings.retain is not None and settings.self_retain and "self_retain" in settings.model_fields_set:
        raise InputError("retain rows are given, or written by the model (self_retain); leave out one of the two")
    rows = {"forget": load(settings.forget, settings, warnings)}
    if settings.retain is not None:
        rows["retain"] = load(settings.retain, settings, warnings)
    if settings.holdout is not None:
        from expunge.training import stopping

        if not method.reads_level:  # there its rows give the level, see expunge.unlearning.level
            stopping.check(method)
        rows["holdout"] = load(settings.holdout, settings, warnings)
    if settings.keep is not None:
        rows |= guard_rows(rows, method, settings, warnings)
    if method.alternate == "generated":
        from expunge.unlearning import alternates as generating

        generating.check(rows["forget"], method.name)  # the model that writes them is not loaded yet
    elif method.alternate:
        rows["alternate"] = alternates(rows["forget"], method, settings.seed)
    return rows


def guard_rows(
    rows: Mapping[str, list[Row]], method: Method, settings: Recipe, warnings: list[str] | None = None
) -> dict[str, list[Row]]:
    """The streams that a utility guard changes: ``keep_rows``, and ``retain`` where they are taken from it."""
    from expunge.training import utility

    retain = rows.get("retain")
    own = None if settings.keep_rows is None else load(settings.keep_rows, settings, warnings)
    utility.check(method, None if retain is None else len(retain), None if own is None else len(own))
    if own is not None:
        return {"keep_rows": own}
    assert retain
    if "retain" not in method.streams:
        return {"keep_rows": retain}
    others, taken = utility.split(len(retain), settings.seed)
    probed = {repr((retain[i].prompt, retain[i].answer)) for i in taken}  # a row that is there twice is not trained on
    left = [i for i in others if repr((retain[i].prompt, retain[i].answer)) not in probed]
    if not left:
        raise InputError("keep: all retain rows are the same, so none is left to train on; give others")
    return {"retain": [retain[i] for i in left], "keep_rows": [retain[i] for i in taken]}


def needs_retain(name: str) -> str:
    """What a person is told who gives the method ``name`` no retain set: ways to have one, and methods that need none."""
    free = [row.name for row in entries().values() if row.streams and "retain" not in row.streams]
    return (
        f"the method {name} protects a retain set; give rows of what must stay with --retain (rows like the forget rows "
        "that are not to be forgotten), let the model write some with --self-retain 64, "
        f"or choose a method that needs none: {', '.join(free)}"
    )


def alternates(forget: Sequence[Row], method: Method, seed: int) -> list[Row]:
    """The forget rows with the answer that is to be preferred: a given one, the method's refusal, or one by (seed, row)."""
    if method.alternate == "refusal":
        return [_refused(r, method.refusal or refusals.refusal(seed, i)) for i, r in enumerate(forget)]
    missing = [r.where for r in forget if not r.alternate]
    if missing:
        raise InputError(
            f"{method.name} needs the column 'alternate' in every forget row; {missing[0]} and {len(missing) - 1} others "
            "have none (idk_dpo uses refusals instead)"
        )
    return [replace(r, answer=r.alternate or "", message=None, every_turn=False) for r in forget]


def _refused(row: Row, refusal: str) -> Row:
    """``row`` with a refusal in place of its answer, and of earlier ones where they are labelled."""
    if not row.every_turn or isinstance(row.prompt, str | None):
        return replace(row, answer=refusal, message=None)
    prompt = tuple({**m, "content": refusal} if m["role"] == "assistant" else m for m in row.prompt)
    return replace(row, prompt=prompt, answer=refusal, message=None)


def encode(raw: Mapping[str, list[Row]], tokenizer: Any, settings: Recipe, warnings: Sequence[str] = ()) -> Data:
    """Check the rows, cut long texts into pieces, and turn them into tokens; ``warnings``: of reading them.

    From here on ``tokenizer`` renders its chat template as ``settings`` says.
    """
    template.use(tokenizer, settings.template_arguments if settings.chat_template else {})
    most = length(settings)
    size = vocabulary(resolve(settings.model))
    whole = {s: [check.uncut(r, tokenizer, chat_template=settings.chat_template) for r in of] for s, of in raw.items()}
    said = check.check(
        raw["forget"],
        raw.get("retain"),
        holdout=raw.get("holdout"),
        tokenizer=tokenizer,
        max_length=most,
        examples=whole,
    )
    for s in raw:
        check.vocabulary(raw[s], whole[s], tokenizer, size)
    rows: dict[str, list[Row]] = {s: [] for s in raw}
    examples: dict[str, list[Example]] = {s: [] for s in raw}
    for s in raw:
        if settings.chat_template:
            said += check.rendering(raw[s], whole[s], tokenizer, s)
        for i, example in enumerate(whole[s]):
            # An alternate answer stands beside each piece of its forget row.
            of = pieces.cut(raw["forget" if s == "alternate" else s][i], tokenizer, most)
            own = of if s != "alternate" else [raw[s][i]] * len(of)
            rows[s] += own
            examples[s] += [chat.encode(r, tokenizer) if r.piece else shortened(example, most) for r in own]
    tokens = {s: (check.labelled(whole[s]), check.labelled(examples[s])) for s in raw if s != "alternate"}
    return Data(
        rows, examples, list(dict.fromkeys([*warnings, *said])), raw, tokens, template.attached(tokenizer), most
    )


def shortened(example: Example, max_length: int) -> Example:
    """``example`` cut on the right."""
    return Example(example.input_ids[:max_length], example.labels[:max_length])


def length(settings: Recipe) -> int:
    """``max_length``, but no more than the model's own positions; InputError where the user asked for more."""
    most = positions(settings.model, trust_remote_code=settings.trust_remote_code)
    if most is None or settings.max_length <= most:
        return settings.max_length
    if "max_length" in settings.model_fields_set:
        raise InputError(
            f"max_length = {settings.max_length} is more than the {most} positions of {settings.model}; "
            f"set max_length={most} or less"
        )
    return most


def with_alternates(data: Data, target: Any, settings: Recipe, folder: Path) -> Data:
    """``data`` with the stream "alternate", of answers that the target model makes up or has made up for this folder."""
    from expunge.unlearning import alternates as generating

    how: dict[str, Any] = {"seed": settings.seed, "chat_template": settings.chat_template}
    rows, warnings = processes.on_main(partial(generating.alternate_rows, data.rows["forget"], target, folder, **how))
    rows = [replace(r, message=None, every_turn=False) for r in rows]
    options: dict[str, Any] = {"max_length": data.max_length, "chat_template": settings.chat_template}
    examples = [chat.encode(r, target.tokenizer, **options) for r in rows]
    return replace(
        data,
        rows={**data.rows, "alternate": rows},
        examples={**data.examples, "alternate": examples},
        warnings=[*data.warnings, *warnings],
        given={**data.given, "alternate": rows},
    )
