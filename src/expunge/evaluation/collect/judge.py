"""What models answered to the questions to forget, judged: every answer scored under the model before unlearning.

A judged answer is a scored text of the variant ``ANSWER_VARIANT`` in the model's table: its log-probabilities are the
judge's, its note is the share of real words in it, so that figures are made again without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from accelerate.utils import broadcast_object_list

from expunge.data.example import Row
from expunge.evaluation.benchmark import ScoreParts, texts
from expunge.evaluation.collect import cached
from expunge.evaluation.fluency import ANSWER_VARIANT
from expunge.evaluation.metrics import fluency as metrics
from expunge.evaluation.probe import EvaluationOptions, Probe
from expunge.evaluation.table import Collected
from expunge.models.tokenizer import load_tokenizer

Results = Mapping[str, tuple[Collected, dict[str, Any]]]  # role -> its table, and its source and fingerprint


def known_words(rows: Iterable[Row], tokenizer: Any) -> Callable[[str], bool]:
    """Which words are known: those of ``rows``, and those that are one token."""
    of_rows = metrics.vocabulary(text for row in rows for text in (*_prompt(row), *texts(row).values()))

    @cache
    def known(word: str) -> bool:
        return word in of_rows or any(_is_one_token(form, tokenizer) for form in (f" {word}", word, f" {word.title()}"))

    return known


def probes(part: str, rows: Mapping[int, Row], said: Mapping[int, str], known: Callable[[str], bool]) -> list[Probe]:
    """A probe of each answer that is not empty, after its row's question; ``said``: row number -> answer."""
    full = {index: text for index, text in said.items() if text.strip()}
    if not full:
        return []
    real = metrics.real_words(list(full.values()), known)
    return [
        Probe(part, index, rows[index], {ANSWER_VARIANT: text}, note=repr(float(share)))
        for (index, text), share in zip(full.items(), real, strict=True)
    ]


def judged(parts: ScoreParts | None, asked: Sequence[Probe], results: Results, how: EvaluationOptions) -> Results:
    """``results`` with each model's answers to the forget rows judged by the target, or by the retrained model without one.

    ``asked``: the probes that were answered.  A table that holds judged answers stays as it is.  Nothing is judged where no
    answer was asked for, or where a model stands alone: its own answers are likely to itself, whatever they are.
    """
    judge = next((results[role][1]["source"] for role in ("target", "retrained") if role in results), None)
    rows = {p.index: p.row for p in asked if parts and p.part == parts.forget and p.ask}
    if parts is None or judge is None or not rows:
        return results
    known = known_words((p.row for p in asked), load_tokenizer(judge, trust_remote_code=how.trust_remote_code))
    out = dict(results)
    for role, (table, facts) in results.items():
        if any(s.variant == ANSWER_VARIANT for s in table.scores):
            continue
        said = {a.index: a.text for a in table.answers if a.part == parts.forget and a.variant == "answer"}
        shared = [probes(parts.forget, rows, said, known)]  # the main process has all answers
        broadcast_object_list(shared)
        if shared[0]:
            found, _ = cached.collected(judge, shared[0], how)
            out[role] = replace(table, scores=(*table.scores, *found.scores)), facts
    return out


def _prompt(row: Row) -> list[str]:
    if row.prompt is None or isinstance(row.prompt, str):
        return [row.prompt or ""]
    return [m["content"] for m in row.prompt if isinstance(m.get("content"), str)]


def _is_one_token(text: str, tokenizer: Any) -> bool:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    filled = [i for i in ids if tokenizer.decode([i]).strip()]
    return len(filled) == 1 and filled[0] != tokenizer.unk_token_id
