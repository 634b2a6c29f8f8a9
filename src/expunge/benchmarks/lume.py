r"""LUME, which is SemEval-2025 task 4: invented stories, invented people with private data, real biographies.

Data: ``amazon-science/lume-llm-unlearning`` on GitHub (Apache-2.0), or a folder with ``forget.jsonl`` and ``retain.jsonl``.
SemEval's train and validation sets are some of these rows, word for word: cut both files to its ids for its figures.
Each row's bare ``input`` is continued greedily for at most 256 tokens, once; the official script does so in bfloat16.

Membership inference needs documents that the model never saw, and the release has none: put them into the folder as
``holdout.jsonl``, one ``{"text": …}`` a row (or ``{"document": …}``, as in SemEval's ``nonmember.jsonl``).  The members are
the real biographies to forget, as whole texts; SemEval took 150 of them.  The final score needs MMLU besides: :func:`final`.

Ramakrishna et al. 2025, arXiv:2502.15097 and arXiv:2504.02883.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from expunge.data.example import Row
from expunge.data.records import Record
from expunge.errors import InputError
from expunge.evaluation import evaluate, table
from expunge.evaluation.benchmark import (
    Benchmark,
    Data,
    DataSet,
    Figure,
    difference_figure,
    mean_figure,
    not_among,
    without_words,
)
from expunge.evaluation.metrics import membership
from expunge.evaluation.metrics.lume import LUME_TERMS, lume_aggregate, lume_final, lume_mia_final, lume_values
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected
from expunge.stats import auc, bootstrap, bootstrap_of_means

HOME = (
    "https://raw.githubusercontent.com/amazon-science/lume-llm-unlearning/b2fa8f9c567715f1e2c6d442213f33b2e9a28fe6/data"
)
SPLITS = ("forget", "retain")
KINDS = {"sc": "regurgitation", "qa": "knowledge"}
ANSWER = Ask(max_new_tokens=256)
MEMBERS, HOLDOUT = "documents", "holdout"
FORGOTTEN = "better when higher, as it enters the aggregate"
WITH_MMLU = "with MMLU accuracy it makes the final score: expunge.benchmarks.lume.final"


def probes(data: Data) -> list[Probe]:
    """Each row's prompt in the part of its term; with a holdout, also its documents and the documents to forget."""
    records = {split: data.records(split) for split in SPLITS}
    locations: dict[str, str] = {}
    rows: dict[str, list[tuple[str, Row]]] = {term: [] for term in LUME_TERMS}
    for split in SPLITS:
        for name, term, row in data.usable(split, records[split], partial(_parse_row, split, locations)):
            rows[term].append((name, row))
    if empty := [term for term, named_rows in rows.items() if not named_rows]:
        raise InputError(f"LUME needs rows for each of its twelve terms; there is none for {', '.join(empty)}")
    out = [
        Probe(term, i, row, ask=ANSWER, note=name)
        for term, named_rows in rows.items()
        for i, (name, row) in enumerate(named_rows)
    ]
    return out + (_documents(data, rows, records["forget"]) if HOLDOUT in data else [])


def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    """The twelve terms, their aggregate, with a holdout the membership attacks, with a retrained model the differences."""
    values = _values(collected)
    out = [_figure(term, v) for term, v in values.items()]
    if retrained is not None:
        retrained_values = _values(retrained)
        out += [
            _figure(term, v - retrained_values[term], "_difference", "to the retrained model")
            for term, v in values.items()
        ]
    out.append(_aggregate(values))
    if not _has_holdout(collected):
        return out
    attacks = membership.figures(collected, retrained, MEMBERS, HOLDOUT)
    return [*out, *attacks, _mia_final(next(f for f in attacks if f.name == "mia_loss_auc"))]


def final(folder: str | Path, mmlu: float) -> Figure:
    r"""LUME's final score of a model: the mean of the task aggregate, the membership score and ``mmlu``.

    ``folder``: what ``expunge bench lume`` wrote, with a holdout; ``mmlu``: the same model's MMLU accuracy, in [0, 1].  The
    interval resamples LUME's rows and documents and takes ``mmlu`` as it is; if the AUC is near 1/2 it is biased to lower
    values, since a resampled AUC is only farther from it.

    Raises InputError for a folder of another benchmark or without a holdout.

    Ramakrishna et al. 2025, arXiv:2504.02883.
    """
    if (name := evaluate.read(folder).get("benchmark")) != "lume":
        raise InputError(f"{folder} holds figures of {name}; LUME's final score needs those of lume")
    collected = table.read(Path(folder) / evaluate.SCORES)
    if not _has_holdout(collected):
        raise InputError(
            f"{folder} has no membership inference; put holdout.jsonl beside LUME's files and run it again"
        )
    values, losses = _values(collected), _losses(collected)

    def final_score(*samples: np.ndarray) -> float:
        return lume_final(_harmonic(samples[:-2]), lume_mia_final(auc(*samples[-2:])), mmlu)

    samples = (*values.values(), *losses)
    interval = bootstrap(final_score, *samples)
    n = sum(map(len, samples))
    return Figure(
        "final", final_score(*samples), n, interval.low, interval.high, "all", f"with an MMLU accuracy of {mmlu:g}"
    )


# -- rows -----------------------------------------------------------------------------------------------------------------
def _parse_row(split: str, locations: dict[str, str], record: Record) -> tuple[str, str, Row]:
    """(id, term, row) of a record; ``locations``: id -> file and row, of the rows before."""
    name = record.text("id")
    if (first := locations.setdefault(name, record.where)) != record.where:
        raise InputError(f"{record.where}: the id stands in {first} too; each row counts once, to forget or to retain")
    return name, _term(split, record), Row(record.text("input"), record.text("output"), where=record.where)


def _term(split: str, record: Record) -> str:
    """The term of ``LUME_TERMS`` of a row; its kind is in its id before the last character."""
    kind = KINDS.get(record.text("id")[-3:-1])
    if kind is None:
        raise InputError(f"{record.where}: the field 'id' must end with sc or qa and a digit, as LUME's do")
    term = f"{split}_{record.text('task')}_{kind}"
    if term not in LUME_TERMS:
        raise InputError(f"{record.where}: the field 'task' must be Task1, Task2 or Task3")
    return term


def _documents(data: Data, rows: Mapping[str, Sequence[tuple[str, Row]]], forget: Sequence[Record]) -> list[Probe]:
    """The biographies to forget, rebuilt from both halves, and documents never seen, as plain texts."""
    members = _members(forget, {row.where for _, row in rows["forget_Task3_regurgitation"]})
    holdout = data.usable(HOLDOUT, data.records(HOLDOUT), _document)
    parts = {MEMBERS: members, HOLDOUT: not_among(data, members, holdout, ("forget", HOLDOUT))}
    return [Probe(part, i, row, {"answer": row.answer}) for part, rows in parts.items() for i, row in enumerate(rows)]


def _members(forget: Sequence[Record], locations: Container[str]) -> list[Row]:
    """The biographies to forget, of the records at ``locations``."""
    halves = [r for r in forget if r.where in locations]
    return [Row(None, f"{r.text('input')} {r.text('output')}", where=r.where) for r in halves]


def _document(record: Record) -> Row:
    return Row(None, record.text("document" if "document" in record.values else "text"), where=record.where)


# -- figures --------------------------------------------------------------------------------------------------------------
def _values(collected: Collected) -> dict[str, np.ndarray]:
    """Term -> (n,) of its rows."""
    answers = {term: collected.generated(term) for term in LUME_TERMS}
    return {t: lume_values(t, [a.expected for a in rows], [a.text for a in rows]) for t, rows in answers.items()}


def _figure(term: str, values: np.ndarray, ending: str = "", note: str = "") -> Figure:
    part, _, kind = term.rpartition("_")
    if part.startswith("forget"):
        kind, note = f"one_minus_{kind}", note or FORGOTTEN
    return (difference_figure if ending else mean_figure)(kind + ending, values, part, note)


def _aggregate(values: dict[str, np.ndarray]) -> Figure:
    zero = [term for term, v in values.items() if not v.any()]
    note = f"harmonic mean of the twelve terms; {WITH_MMLU}"
    if zero:
        note = f"0, for so is {', '.join(zero)}; {note}"
    samples = list(values.values())
    interval = bootstrap_of_means(lambda *means: lume_aggregate(dict(zip(LUME_TERMS, means, strict=True))), *samples)
    return Figure(
        "task_aggregate", _harmonic(samples), sum(map(len, samples)), interval.low, interval.high, "all", note
    )


def _mia_final(loss: Figure) -> Figure:
    """The membership score of the loss attack; its interval is that of the AUC, transformed."""
    assert loss.low is not None and loss.high is not None
    low, high = sorted((lume_mia_final(loss.low), lume_mia_final(loss.high)))
    high = 1.0 if loss.low <= 0.5 <= loss.high else high
    note = f"1 - 2 |AUC of the loss - 1/2|; {WITH_MMLU}"
    return Figure("mia_final", lume_mia_final(loss.value), loss.n, low, high, MEMBERS, note)


def _harmonic(samples: Sequence[np.ndarray]) -> float:
    return lume_aggregate({t: float(np.mean(v)) for t, v in zip(LUME_TERMS, samples, strict=True)})


def _has_holdout(collected: Collected) -> bool:
    return any(s.part == HOLDOUT for s in collected.scores)


def _losses(collected: Collected) -> tuple[np.ndarray, np.ndarray]:
    """Mean token loss of each document, to forget and never seen."""
    return -collected.mean_logp(MEMBERS), -collected.mean_logp(HOLDOUT)


FORGET, RETAIN = (DataSet(split, f"{HOME}/{split}.jsonl") for split in SPLITS)
LUME = Benchmark(
    name="lume",
    paper="arXiv:2502.15097",
    sets=(FORGET, RETAIN, DataSet(HOLDOUT, "", optional=True)),
    probes=probes,
    score=score,
    warn=partial(
        without_words,
        parts=[term for term in LUME_TERMS if term.endswith("regurgitation")],
        how="they score 0, as in the official script",
    ),
    chat_template=False,
    max_length=2048,
    forget=FORGET,
    retain=RETAIN,
)
