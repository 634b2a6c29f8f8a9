"""Record -> what the page says: the sentence, tiles, tables of figures, examples, warnings and limits.

Pure functions from a record, in which any part may be missing, to text; ``format`` formats the numbers, ``settings`` has
the settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from expunge.record import complete
from expunge.record_types import RunRecord
from expunge.report.format import (
    DASH,
    cell,
    count,
    duration,
    lookup,
    number,
    percent,
    plain,
    probability,
    scale,
)

FIGURES = (
    ("probability", "Probability", "of the expected answer, per token"),
    ("nll", "Loss", "negative log-likelihood per token, in nats"),
    ("rouge_l", "ROUGE-L", "overlap of the written answer with the expected one"),
    ("truth_ratio", "Truth ratio", "wrong answers measured against the right one"),
    ("n", "Rows", "how many the figures are a mean of"),
)
LANGUAGE = (
    ("fluency", "Fluency of answers", "1: ordinary language, near 0: none; of the three figures below"),
    ("answer_perplexity", "Perplexity of answers", "under the model before; thousands: made-up words"),
    ("answer_repetition", "Repetition in answers", "share of three-word sequences that came before"),
    ("answer_real_words", "Real words in answers", "share of the words; a name that nobody knows counts half"),
)


@dataclass(frozen=True)
class Tile:
    """One headline figure: its name, the figure, and a small line under it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table: a name, a line that explains it, and one cell a column."""

    name: str
    cells: tuple[str, ...]
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Columns after the name column, and the rows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Example:
    """One question, and (label, text) for the expected answer and what each model wrote."""

    question: str
    answers: tuple[tuple[str, str], ...]


# -- the top of the page -------------------------------------------------------------------------------------
def title(said: Any) -> str:
    """The record's title, or one made from the method's name."""
    record = complete(RunRecord, said)
    return record["title"] or f"Unlearning with {record['method']['name'] or 'an unnamed method'}"


def reference_name(said: Any) -> str | None:
    """What the third model is called, or None if the record has none."""
    record = complete(RunRecord, said)
    return (record["reference_name"] or "reference model") if record["reference"] else None


def kept(said: Any) -> float | None:
    """Retain probability after ÷ before, or None where that says nothing (missing, or zero before)."""
    record = complete(RunRecord, said)
    before, after = (number(part, "retain", "probability") for part in (record["before"], record["after"]))
    return None if before is None or after is None or before <= 0 else after / before


def measured(said: Any) -> bool:
    """Whether any of the usual figures of the forget or the retain set is in the record."""
    record = complete(RunRecord, said)
    return any(
        number(figures, name, key) is not None
        for figures in (record["before"], record["after"])
        for name in ("forget", "retain")
        for key, *_ in FIGURES
    )


def summary(said: Any) -> str:
    """What the run did, in one sentence of plain words, from the figures that are there."""
    record = complete(RunRecord, said)
    before, after = (number(part, "forget", "probability") for part in (record["before"], record["after"]))
    if before is not None and after is not None:
        forgot = f"{_moved(before, after)}{_beside(record)}"
    elif after is not None:
        forgot = f"is {probability(after)}, with no figure from before"
    elif before is not None:
        forgot = f"was {probability(before)}, with no figure from after"
    elif kept(record) is not None:
        forgot = "was not measured"
    else:
        return "The record has no figures that say what was forgotten or kept."
    return f"The model's probability of the forget answers {forgot}; {_kept_words(record)}."


def _moved(before: float, after: float) -> str:
    if probability(before) == probability(after):
        return f"stayed at {probability(after)}"
    return f"{'rose' if after > before else 'went'} from {probability(before)} to {probability(after)}"


def _beside(record: RunRecord) -> str:
    reference = number(record["reference"], "forget", "probability")
    return "" if reference is None else f" ({reference_name(record)}: {probability(reference)})"


def _kept_words(record: RunRecord) -> str:
    ratio = kept(record)
    if ratio is None:
        return "how much it kept of the retain answers was not measured"
    if ratio > 1 and percent(ratio) != "100 %":
        return f"its probability on the retain answers rose to {percent(ratio)} of what it was"
    return f"it kept {percent(ratio)} of its probability on the retain answers"


def tiles(said: Any) -> list[Tile]:
    """The headline strip: forget probability, retain probability kept, time, peak memory."""
    record = complete(RunRecord, said)
    forget, retain = (
        tuple(probability(number(part, name, "probability")) for part in (record["before"], record["after"]))
        for name in ("forget", "retain")
    )
    reference = number(record["reference"], "forget", "probability")
    steps, parts = len(record["steps"]), record["parts"]
    return [
        Tile(
            "Forget probability",
            " → ".join(forget) if set(forget) != {DASH} else DASH,
            f"{reference_name(record)}: {probability(reference)}" if reference is not None else "before → after",
        ),
        Tile(
            "Retain probability kept",
            percent(kept(record)),
            " → ".join(retain) if set(retain) != {DASH} else "not measured",
        ),
        Tile(
            "Time",
            duration(record["seconds"]),
            (f"{count(steps)} step{'' if steps == 1 else 's'} on record" if steps else "no step on record")
            + (f", in {len(parts)} parts" if len(parts) > 1 else ""),
        ),
        Tile("Peak memory", scale(record["peak_memory_bytes"], "B"), "main memory of the process"),
    ]


# -- figures and examples ------------------------------------------------------------------------------------
def figures(said: Any, name: str) -> Table:
    """Before, after and (if there is one) the reference model on the ``forget`` or ``retain`` set."""
    record = complete(RunRecord, said)
    columns = {"Before": record["before"], "After": record["after"]}
    if (third := reference_name(record)) and record["reference"]:
        columns[third[:1].upper() + third[1:]] = record["reference"]
    rows = (
        Row(label, tuple(cell(key, number(of, name, key)) for of in columns.values()), hint)
        for key, label, hint in (*FIGURES, *_language(columns.values(), name), *_own_figures(columns.values(), name))
    )
    return Table(tuple(columns), tuple(rows))


def _language(models: Iterable[Any], name: str) -> list[tuple[str, str, str]]:
    """The figures of answers, where they were measured."""
    measured = {key for of in models for key in lookup(of, name) or ()}
    return [row for row in LANGUAGE if row[0] in measured]


def _own_figures(models: Iterable[Any], name: str) -> list[tuple[str, str, str]]:
    """The figures of one set that come from metrics of the user's, as :data:`FIGURES` has the usual ones."""
    usual = [key for key, *_ in (*FIGURES, *LANGUAGE)]
    keys = dict.fromkeys(key for of in models for key in lookup(of, name) or () if key not in usual)
    return [(key, key, "a metric of the user's") for key in keys]


def examples(said: Any, name: str) -> list[Example]:
    """The example answers of the ``forget`` or ``retain`` set; the reference only where one is given."""
    record = complete(RunRecord, said)
    third = reference_name(record) or "Reference"
    found = []
    for item in (e for e in record["examples"] if e["set"] == name):
        texts = [("Expected", item["expected"]), ("Before", item["before"]), ("After", item["after"])]
        texts += [(third[:1].upper() + third[1:], item["reference"])] if item["reference"] is not None else []
        found.append(Example(plain(item["question"]), tuple((label, plain(text)) for label, text in texts)))
    return found


def warnings(said: Any) -> list[str]:
    """The record's warnings, as text."""
    record = complete(RunRecord, said)
    return [plain(item) for item in record["warnings"]]


# -- limits --------------------------------------------------------------------------------------------------
def limits(said: Any) -> list[str]:
    """What the page does not show, in plain words, from what the record has."""
    record = complete(RunRecord, said)
    third = reference_name(record)
    near = (
        f"The {third} is one model from one run; being close to it on these figures does not make them alike."
        if third
        else "No model that never saw the forget set was scored; how near the result is to one is not known."
    )
    return [
        _sample(record),
        "Probability and ROUGE-L say what the model answers to these questions, asked in this "
        "way. They are not attacks: a question put differently, an answer begun for the model, a "
        "quantised copy or a little further training may bring an answer back.",
        f"What was kept is measured {'by the watched figure' if _watched(record) else 'on the retain rows'} alone. "
        "The model may have lost, or gained, something else that no row here asks about.",
        near,
        "The run wrote one model. The data files, the source model, earlier checkpoints, copies and "
        "backups are as they were.",
        "This page is not a certificate. The program that made the run wrote it from the run's "
        "own record, and it proves neither that the data have no influence left nor that a legal "
        "duty is met.",
    ]


def _watched(record: RunRecord) -> bool:
    """Whether the page's figures are those that a release looked at, and not of the forget and the retain set."""
    release = record["release"]
    return not measured(record) and bool(release and release["trajectory"])


def _sample(record: RunRecord) -> str:
    """How many rows and seeds the figures rest on."""
    counted = []
    for name in ("forget", "retain"):
        rows = number(record["after"], name, "n") or number(record["before"], name, "n")
        if rows:
            counted.append(f"{count(rows)} {name} row{'' if rows == 1 else 's'}")
    if _watched(record):
        return (
            "The figures are of the questions that were watched, from one run. Another seed would give other figures."
        )
    if not counted:
        return "No rows were scored, so this page cannot say what was forgotten or kept."
    seed = record["seed"]
    run = "one run" if seed is None else f"one run with one seed ({plain(seed)})"
    return (
        f"The figures come from {' and '.join(counted)}, and from {run}. Another seed, or other rows, "
        "would give other figures, and the page shows no interval for them."
    )
