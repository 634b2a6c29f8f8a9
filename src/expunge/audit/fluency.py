"""How fluent the answers of all models are, under one judge: the model before unlearning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from expunge.audit.material import Material, asked
from expunge.audit.measure import ANSWERED, Rows, general_rows, said_of
from expunge.audit.settings import Audit
from expunge.data.example import Row
from expunge.evaluation import fluency
from expunge.evaluation.collect import judge as judging
from expunge.evaluation.collect.one_pass import collect
from expunge.evaluation.probe import Probe
from expunge.evaluation.table import Collected, Generated, Scored

Place = tuple[str, int, str]  # part, row number, text


def judged(
    tables: Mapping[str, Collected], judge: Any, tokenizer: Any, material: Material, settings: Audit
) -> dict[str, dict[str, Rows]]:
    """Role -> part -> (n,) ``fluency`` of the answers under the model ``judge``, by row number.

    ``tables``: of all models; that of the judge itself is ``target``.  Each different answer is scored once, one that the
    judge's table holds not at all.
    """
    given = {"forget": material.forget, "retain": material.retain, "general": list(general_rows())}
    rows = {part: asked(some) for part, some in given.items()}
    known: Callable[[str], bool] = judging.known_words([r for of in rows.values() for r in of], tokenizer)
    wanted = {
        (role, part): judging.probes(part, dict(enumerate(rows[part])), said, known)
        for role, table in tables.items()
        for part in ANSWERED
        if (said := said_of(table, part))
    }
    scores = already_scored(tables["target"], given)
    missing = together([p for probes in wanted.values() for p in probes], scores)
    how: dict[str, Any] = {"max_length": material.max_length, "chat_template": settings.chat_template, "alone": True}
    found = collect(judge, tokenizer, missing, **how).scores if missing else ()
    scores |= {(s.part, s.index, s.text): s for s in found}
    out: dict[str, dict[str, Rows]] = {role: {} for role in tables}
    for (role, part), probes in wanted.items():
        judgements = tuple(_judgement(p, scores) for p in probes)
        said = said_of(tables[role], part)
        answers = tuple(Generated(part, i, "answer", rows[part][i].answer, text) for i, text in said.items())
        values = fluency.answers(Collected(judgements, answers), part)
        if values is not None:
            out[role][part] = {"fluency": values.fluency, "index": np.array(values.index, dtype=np.float64)}
    return out


def already_scored(table: Collected, rows: Mapping[str, Sequence[Row]]) -> dict[Place, Scored]:
    """The texts that a table holds the scores of as answers to ``rows``; a plain text was scored whole, as no answer."""
    return {
        (s.part, s.index, s.text): s
        for s in table.scores
        if s.part in rows and (row := rows[s.part][s.index]).prompt is not None and not row.every_turn
    }


def together(probes: Iterable[Probe], scored: Mapping[Place, Scored]) -> list[Probe]:
    """``probes`` of one text each as one probe a row, with its different texts, those in ``scored`` left out."""
    texts: dict[tuple[str, int], dict[str, Probe]] = {}
    for p in probes:
        (text,) = p.texts.values()
        if (p.part, p.index, text) not in scored:
            texts.setdefault((p.part, p.index), {})[text] = p
    return [
        Probe(part, i, next(iter(of.values())).row, {f"{fluency.ANSWER_VARIANT}{k}": text for k, text in enumerate(of)})
        for (part, i), of in texts.items()
    ]


def _judgement(probe: Probe, scores: Mapping[Place, Scored]) -> Scored:
    (text,) = probe.texts.values()
    return replace(scores[probe.part, probe.index, text], variant=fluency.ANSWER_VARIANT, note=probe.note)
