"""MMLU: 57 subjects in multiple choice, which unlearning should not change.  Hendrycks et al. 2021, arXiv:2009.03300.

Data: ``cais/mmlu`` on the Hub (MIT), or a folder with ``test/<subject>_test.csv`` and, for the five examples,
``dev/<subject>_dev.csv``, each with a header line ``question,choice0,choice1,choice2,choice3,answer``.

``mmlu`` asks without examples, as lm-evaluation-harness's task ``mmlu`` does by default and as unlearning
papers report it; ``mmlu/5-shot`` puts the subject's five examples before each question, as Hendrycks et al. and most model
cards do.  ``accuracy`` over ``all`` questions is the harness's ``acc`` of the group and the average that Hendrycks et al.'s
code prints (14,042 questions); ``macro_accuracy`` is the plain mean of the subjects' accuracies, which others report.

A prompt is cut on its left at 2048 tokens: with SmolLM2's tokenizer that shortens the examples before 377 questions, nearly
all on European and US history; Hendrycks et al. leave out whole examples there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from expunge.benchmarks import choice
from expunge.benchmarks.choice import Question
from expunge.data.records import Record
from expunge.errors import InputError
from expunge.evaluation.benchmark import Benchmark, Data, DataSet, Figure, mean_figure
from expunge.evaluation.probe import Probe
from expunge.evaluation.table import Collected
from expunge.stats import bootstrap_of_means

TEST = DataSet("test", "cais/mmlu:all@test", "test/*_test")
DEV = DataSet("dev", "cais/mmlu:all@dev", "dev/*_dev")


def probes(data: Data, shots: int) -> list[Probe]:
    """Every question, each subject a part of its own, after the first ``shots`` examples of its subject."""
    examples_by_subject = _by_subject(data, "dev") if shots else {}
    out = []
    for subject, questions in _by_subject(data, "test").items():
        examples = examples_by_subject.get(subject, [])[:shots]
        if shots and not examples:
            raise InputError(f"{subject} has 0 of the {shots} examples to show; is its dev file whole?")
        if len(examples) < shots:
            data.warnings.append(
                f"{subject} is asked after {len(examples)} examples, for it has no more; others after {shots}"
            )
        topic = subject.replace("_", " ")
        out += [choice.probe(subject, i, q, topic, examples) for i, q in enumerate(questions)]
    return out


def score(collected: Collected, retrained: Collected | None = None) -> list[Figure]:
    r"""Each subject's accuracy, their mean, and the figures over all questions.

    .. math:: \text{macro} = \tfrac1S \sum_s a_s, \qquad \text{over all} = \sum_s n_s a_s \Big/ \sum_s n_s

    The macro interval resamples each subject's questions.

    Hand-worked: 1 of 1 and 1 of 3 right give (1 + 1/3) / 2 = 2/3 and 2 / 4 = 1/2.
    """
    values_by_subject = {subject: choice.values(collected, subject) for subject in choice.parts(collected)}
    retrained_values = None
    if retrained is not None:
        retrained_values = choice.pooled([choice.values(retrained, subject) for subject in values_by_subject])
    accuracies = {subject: v["accuracy"] for subject, v in values_by_subject.items()}
    pooled_values = choice.pooled(list(values_by_subject.values()))
    return [
        *(mean_figure("accuracy", v, subject, choice.NOTES["accuracy"]) for subject, v in accuracies.items()),
        _macro(list(accuracies.values())),
        *choice.figures(pooled_values, "all", retrained_values),
    ]


def _macro(accuracies: list[np.ndarray]) -> Figure:
    def mean(*subjects: float) -> float:
        return float(np.mean(subjects))

    interval = bootstrap_of_means(mean, *accuracies)
    n = sum(map(len, accuracies))
    note = f"mean of {len(accuracies)} subjects, each weighing the same"
    return Figure(
        "macro_accuracy", mean(*(float(np.mean(v)) for v in accuracies)), n, interval.low, interval.high, "all", note
    )


def _by_subject(data: Data, name: str) -> dict[str, list[Question]]:
    out: dict[str, list[Question]] = {}
    for subject, question in data.usable(name, data.records(name), lambda r: (_subject(r), choice.question(r))):
        out.setdefault(subject, []).append(question)
    return out


def _subject(record: Record) -> str:
    """The row's subject: its column, or the name of its file."""
    name = Path(record.file).stem
    if "subject" not in record.values and name.endswith(("_test", "_dev")):
        return name.rsplit("_", 1)[0]
    return record.text("subject")


def _benchmark(name: str, shots: int) -> Benchmark:
    return Benchmark(
        name=name,
        paper="arXiv:2009.03300",
        sets=(TEST, DEV) if shots else (TEST,),
        probes=lambda data: probes(data, shots),
        score=score,
        chat_template=False,
        max_length=choice.MAX_LENGTH,
    )


ALL = [_benchmark("mmlu", 0), _benchmark("mmlu/5-shot", 5)]
