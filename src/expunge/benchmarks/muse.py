r"""MUSE: news articles or novels to forget, by six criteria.  Shi et al. 2024, arXiv:2407.06460.

One ``expunge bench`` gives four of them: verbatim memorisation (VerbMem) and knowledge memorisation (KnowMem) of the forget
set, privacy leakage (PrivLeak, needs ``--retrained``), and utility (KnowMem of the retain set).

The other two are several runs each, of News only, with a bench after every one; :func:`along` lines up their figures.

* Scalability: unlearn from the target model ``SCALABILITY[k]`` alone, for each k; each set holds the one before.
* Sustainability: unlearn ``SUSTAINABILITY[0]`` from the target model, the next set from the resulting model, and so on.

    expunge run --model TARGET --forget muse-bench/MUSE-News:scal@forget_2 --retain muse-bench/MUSE-News:raw@retain1 \
        --method npo --out scal-2
    expunge bench muse/news --model scal-2/model --retrained RETRAINED --out figures-2

Data: ``muse-bench/MUSE-News`` and ``muse-bench/MUSE-Books`` on the Hub (CC-BY-4.0), or a folder with ``forget_qa.json``,
``forget_qa_icl.json``, ``retain_qa.json``, ``retain_qa_icl.json`` and, optionally, ``verbmem_forget.json``,
``privleak_forget.json``, ``privleak_holdout.json``.  Prompts are raw text and answers greedy.  Gradient norms are left out:
a backward pass over each text of 2048 tokens.

The forget set is ``raw@forget``, the retain set ``raw@retain1``: articles, or whole books.  Training cuts a row at
``max_length``, so books have to be cut into pieces of 2048 tokens first, as MUSE's own code does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from expunge.data.example import Row
from expunge.data.records import Record
from expunge.errors import InputError
from expunge.evaluation import evaluate
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
from expunge.evaluation.metrics import likelihood as metrics
from expunge.evaluation.metrics import membership
from expunge.evaluation.metrics.rouge import knowledge_memorisation, rouge, verbatim_memorisation
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected

KNOWMEM = Ask(max_new_tokens=32, stop=("\n\n", "\nQuestion", "Question:"))
VERBMEM = Ask(max_new_tokens=128, cut=True)
QUESTIONS = ("forget_qa", "retain_qa")
TEXTS = ("privleak_forget", "privleak_holdout")


# -- probes ---------------------------------------------------------------------------------------------------------------
def probes(data: Data) -> list[Probe]:
    """Questions after worked examples; beginnings to continue; texts for membership inference."""
    out = [probe for part in QUESTIONS for probe in _questions(data, part)]
    if "verbmem_forget" in data:
        beginnings = data.usable("verbmem_forget", data.records("verbmem_forget"), _beginning)
        out += [
            Probe("verbmem", i, row, {"answer": f" {row.answer}"}, VERBMEM, continues=True)
            for i, row in enumerate(beginnings)
        ]
    if all(name in data for name in TEXTS):
        forget_rows, holdout_rows = (data.usable(name, data.records(name), _plain) for name in TEXTS)
        holdout_rows = not_among(data, forget_rows, holdout_rows, TEXTS)
        for part, rows in (("forget", forget_rows), ("holdout", holdout_rows)):
            out += [Probe(part, i, row, {"answer": row.answer}) for i, row in enumerate(rows)]
    return out


def _questions(data: Data, part: str) -> list[Probe]:
    examples = data.usable(f"{part}_icl", data.records(f"{part}_icl"), _question_answer)
    items = data.usable(part, data.records(part), _question_answer)
    context = "".join(f"{question}{answer}\n\n" for question, answer, _ in examples)
    return [
        Probe(part, i, Row(context + question, answer, where=where), ask=KNOWMEM)
        for i, (question, answer, where) in enumerate(items)
    ]


def _question_answer(record: Record) -> tuple[str, str, str]:
    """(question as in the prompt, answer, file and row)."""
    return f"Question: {record.text('question')}\nAnswer: ", record.text("answer"), record.where


def _beginning(record: Record) -> Row:
    return Row(record.text("prompt"), record.text("gt"), where=record.where)


def _plain(record: Record) -> Row:
    return Row(None, record.text("text"), where=record.where)


# -- figures --------------------------------------------------------------------------------------------------------------
def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    """Four criteria, each memorisation also as OpenUnlearning computes it and relative to the retrained model."""
    parts = {s.part for s in collected.scores}
    out = [figure for part in QUESTIONS for figure in _knowmem(collected, retrained, part)]
    if "verbmem" in parts:
        out += _verbmem(collected, retrained)
    if "forget" in parts:
        out += membership.figures(collected, retrained, "forget", "holdout")
    return out


def _knowmem(collected: Collected, retrained: Collected | None, part: str) -> list[Figure]:
    def values(table: Collected) -> np.ndarray:
        return knowledge_memorisation(*_pairs(table, part))

    stemmed = rouge(*_pairs(collected, part), part="f1")
    return [
        mean_figure(
            "knowmem", values(collected), part, "MUSE's KnowMem, printed there times 100: ROUGE-L F1, no stemmer"
        ),
        *_difference(values, collected, retrained, "knowmem", part),
        mean_figure("knowmem_stemmed", stemmed, part, f"OpenUnlearning's {part.removesuffix('_qa')}_knowmem_ROUGE"),
    ]


def _verbmem(collected: Collected, retrained: Collected | None) -> list[Figure]:
    def values(table: Collected) -> np.ndarray:
        return verbatim_memorisation(*_pairs(table, "verbmem"))

    texts = collected.scored("verbmem")
    stemmed = rouge([t.text for t in texts], [a.text for a in collected.generated("verbmem")], part="f1")
    hits = [membership.words(t, t.hit) for t in texts]
    muse_note = "MUSE's VerbMem, printed there times 100: ROUGE-L F1, no stemmer, the true text cut to 128 tokens"
    openunlearning_note = "OpenUnlearning's forget_verbmem_ROUGE: against the whole true text"
    token_note = "of every token; OpenUnlearning leaves out the last"
    return [
        mean_figure("verbmem", values(collected), "verbmem", muse_note),
        *_difference(values, collected, retrained, "verbmem", "verbmem"),
        mean_figure("verbmem_stemmed", stemmed, "verbmem", openunlearning_note),
        mean_figure("exact_memorisation", metrics.exact_memorisation(hits), "verbmem", token_note),
        mean_figure("extraction_strength", metrics.extraction_strength(hits), "verbmem", token_note),
    ]


def _pairs(table: Collected, part: str) -> tuple[list[str], list[str]]:
    answers = table.generated(part)
    return [a.expected for a in answers], [a.text for a in answers]


def _difference(
    values: Callable[[Collected], np.ndarray], collected: Collected, retrained: Collected | None, name: str, part: str
) -> list[Figure]:
    """The mean difference to the retrained model, row by row."""
    if retrained is None:
        return []
    note = "of the same rows; 0: as the retrained model"
    return [difference_figure(f"{name}_above_retrained", values(collected) - values(retrained), part, note)]


# -- several runs ---------------------------------------------------------------------------------------------------------
def along(folders: Sequence[str | Path]) -> dict[tuple[str, str], list[Figure]]:
    """(part, name) -> that figure of each run, in the order of ``folders``, for scalability and sustainability.

    ``folders``: the folders of ``expunge bench`` after each run.  Figures that not all of them have are left out.

    Raises InputError if they were not measured alike: another benchmark, other rows, or other evaluation settings.
    """
    if not folders:
        raise InputError("give the folders of at least one `expunge bench`")
    records = [evaluate.read(folder) for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        for key in ("benchmark", "limit", "dtype", "max_length", "chat_template"):
            if record.get(key) != records[0].get(key):
                raise InputError(
                    f"{folder}: {key} is {record.get(key)!r}, in {folders[0]} it is {records[0].get(key)!r}"
                )
        if record["data"]["fingerprint"] != records[0]["data"]["fingerprint"]:
            raise InputError(f"{folder} was measured on other rows than {folders[0]}")
    runs = [{(f["part"], f["name"]): Figure(**f) for f in record["figures"]} for record in records]
    return {key: [run[key] for run in runs] for key in runs[0] if all(key in run for run in runs)}


# -- the data -------------------------------------------------------------------------------------------------------------
def _set(corpus: str, config_and_split: str, file: str = "", *, optional: bool = False) -> DataSet:
    """``config_and_split``: configuration and split on the Hub, such as ``raw@forget``."""
    name = config_and_split.replace("@", "_").removeprefix("knowmem_")
    return DataSet(name, f"muse-bench/MUSE-{corpus}:{config_and_split}", file, optional)


def _benchmark(corpus: str) -> Benchmark:
    questions = [
        _set(corpus, "knowmem@forget_qa"),
        _set(corpus, "knowmem@forget_qa_icl"),
        _set(corpus, "knowmem@retain_qa", "retain*_qa"),  # retain2_qa in the authors' first copies
        _set(corpus, "knowmem@retain_qa_icl", "retain*_qa_icl"),
    ]
    texts = [_set(corpus, p, optional=True) for p in ("verbmem@forget", "privleak@forget", "privleak@holdout")]
    return Benchmark(
        name=f"muse/{corpus.lower()}",
        paper="arXiv:2407.06460",
        sets=(*questions, *texts),
        probes=probes,
        score=score,
        warn=partial(without_words, parts=(*QUESTIONS, "verbmem"), how="they score 0, as in MUSE's code"),
        chat_template=False,
        max_length=2048,
        forget=_set(corpus, "raw@forget"),
        retain=_set(corpus, "raw@retain1"),
    )


ALL = [_benchmark(corpus) for corpus in ("News", "Books")]
SCALABILITY = tuple(_set("News", f"scal@forget_{k}") for k in (1, 2, 3, 4))
SUSTAINABILITY = tuple(_set("News", f"sust@forget_{k}") for k in (1, 2, 3, 4))
