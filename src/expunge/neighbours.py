"""Our benchmarks for other evaluators: what a benchmark lets a model answer, as plain rows, and how an answer is scored.

``examples/lm_eval`` has the tasks for lm-evaluation-harness, ``examples/inspect_ai/expunge_benchmark.py`` the one for
Inspect; both read their rows here.  Texts that are only scored (probabilities, truth ratios, membership) are
:mod:`expunge.evaluation`'s alone.
"""

from __future__ import annotations

from typing import Any, TypedDict

from expunge.benchmarks import named
from expunge.errors import InputError, nearest
from expunge.evaluation.benchmark import data_of


class Asked(TypedDict):
    """One question: ``messages`` as a chat, the right ``answer``, how long the model's may be, and what ends it."""

    part: str
    index: int
    messages: list[dict[str, str]]
    answer: str
    max_new_tokens: int
    stop: list[str]


def asked(benchmark: str, data: str | None = None, *, part: str | None = None, limit: int | None = None) -> list[Asked]:
    """The questions of ``benchmark`` that a model answers; of one ``part``, the first ``limit`` of each.

    ``benchmark``: a name, or the file of your own; ``data``: a folder with its files, in place of the Hub.  Raises
    InputError for a part that is not there, and for a benchmark that lets a model write nothing.
    """
    made = named(benchmark)
    probes = [p for p in made.probes(data_of(made, data)) if p.ask is not None]
    parts = list(dict.fromkeys(p.part for p in probes))
    if not parts:
        raise InputError(f"{benchmark} has no questions that a model answers; use expunge bench {benchmark}")
    if part is not None and part not in parts:
        raise InputError(f"{benchmark} has no part {part!r}{nearest(part, parts)}; there are {', '.join(parts)}")
    rows: list[Asked] = []
    for name in parts if part is None else [part]:
        of_it = [p for p in probes if p.part == name]
        rows += [
            {
                "part": p.part,
                "index": p.index,
                "messages": _messages(p.row.prompt),
                "answer": p.row.answer,
                "max_new_tokens": p.ask.max_new_tokens,
                "stop": list(p.ask.stop),
            }
            for p in of_it[:limit]
            if p.ask is not None
        ]
    return rows


def recall(expected: str, answer: str) -> float:
    """ROUGE-L recall: how much of the right answer is said.

    >>> recall("Ada lives in Oru.", "In Oru."), recall("Ada lives in Oru.", "I do not know.")
    (0.5, 0.0)
    """
    from expunge.evaluation.metrics.rouge import rouge

    return float(rouge([expected], [answer])[0])


def lm_eval_dataset(
    *,
    benchmark: str = "tofu/forget10",
    part: str | None = None,
    data: str | None = None,
    limit: int | None = None,
    **_: Any,
) -> dict[str, Any]:
    """``{"test": Dataset}``, as the key ``custom_dataset`` of a task of lm-evaluation-harness wants it."""
    from datasets import Dataset

    return {"test": Dataset.from_list([dict(row) for row in asked(benchmark, data, part=part, limit=limit)])}


def lm_eval_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The figure of one row, as the key ``process_results`` of a task wants it."""
    return {"rouge_l_recall": recall(doc["answer"], results[0])}


def _messages(prompt: Any) -> list[dict[str, str]]:
    if isinstance(prompt, str) or prompt is None:
        return [{"role": "user", "content": prompt or ""}]
    return [{"role": m["role"], "content": m["content"] or ""} for m in prompt]
