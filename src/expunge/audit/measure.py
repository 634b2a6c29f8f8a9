"""One pass over a model: of each row what it knows, what membership attacks see, and how fluent its answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.attacks.words import common
from expunge.audit.material import Material, asked
from expunge.audit.settings import Audit
from expunge.data import sources
from expunge.data.example import Row
from expunge.evaluation.metrics import likelihood, membership
from expunge.evaluation.metrics.fluency import words
from expunge.evaluation.metrics.rouge import readable, rouge
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.table import Collected

Array = NDArray[np.float64]
Rows = dict[str, Array]  # figure -> one value a row
ANSWERED = ("forget", "retain", "general")  # parts whose questions are answered
OTHERWISE = "asked otherwise"  # the part of paraphrased questions
COUNTERFACTUAL = "wrong answers"  # the part of non-members without holdout rows
FEWER = 2  # of how many retain rows one is answered; all are scored


@cache
def general_rows() -> tuple[Row, ...]:
    """Two dozen questions of general knowledge, that are nobody's: what a model that still works answers as before."""
    lines = resources.files("expunge.audit").joinpath("general.jsonl").read_text(encoding="utf-8").splitlines()
    import json

    return tuple(sources.load_rows([json.loads(line) for line in lines]))


def probes(material: Material, settings: Audit) -> list[Probe]:
    """What every model of an audit is asked."""
    ask = Ask(settings.max_new_tokens)
    norm = ("answer",) if settings.gradient and material.holdout else ()
    out: list[Probe] = []
    for i, row in enumerate(material.forget):
        rewritten = material.rewritten[i]
        said = {"answer": row.answer} | {f"wrong{k}": t for k, t in enumerate(rewritten.wrong[: settings.wrong])}
        out += _probes("forget", i, row, said, ask, norm)
    out += [Probe(OTHERWISE, i, row, ask=ask) for i, row in material.asked_otherwise().items()]
    for i, row in enumerate(material.retain):
        out += _probes("retain", i, row, {"answer": row.answer}, ask if i % FEWER == 0 else None)
    for i, row in enumerate(general_rows() if settings.general else ()):
        out += _probes("general", i, row, {"answer": row.answer}, Ask(min(24, settings.max_new_tokens)))
    for i, row in enumerate(material.holdout):
        out += _probes("holdout", i, row, {"answer": row.answer}, None, norm)
    return out


def _probes(
    part: str, i: int, row: Row, said: Mapping[str, str], ask: Ask | None, norm: tuple[str, ...] = ()
) -> list[Probe]:
    """A row's probe; a plain text is scored whole and continued from its middle."""
    plain = row.prompt is None
    own = Probe(part, i, row, said, None if plain else ask, grad_norm=norm)
    return [own, Probe(part, i, asked([row])[0], ask=ask)] if plain and ask else [own]


def measured(model: Any, tokenizer: Any, material: Material, settings: Audit, name: str = "") -> Collected:
    """The table of a model on the rows of ``material``."""
    from tqdm.auto import tqdm

    from expunge.evaluation.collect.one_pass import collect

    asked_of = probes(material, settings)
    total = sum(len(p.texts) + bool(p.ask) for p in asked_of)
    with tqdm(total=total, desc=f"asking {name or 'the model'}", leave=False) as bar:
        return collect(
            model,
            tokenizer,
            asked_of,
            max_length=material.max_length,
            chat_template=settings.chat_template,
            progress=bar.update,
            alone=True,
        )


def probability(model: Any, tokenizer: Any, rows: Sequence[Row], material: Material, settings: Audit) -> Array:
    """(n,) the probability of the answer of each of ``rows``: what attacks are measured by."""
    from expunge.evaluation.collect.one_pass import collect

    only = [Probe("forget", i, row, {"answer": row.answer}) for i, row in enumerate(rows)]
    how: dict[str, Any] = {"max_length": material.max_length, "chat_template": settings.chat_template, "alone": True}
    return likelihood.probability(collect(model, tokenizer, only, **how).mean_logp("forget"))


# -- of each row ----------------------------------------------------------------------------------------------------------
def recall(expected: Sequence[str], given: Sequence[str]) -> Array:
    """ROUGE-L recall of each pair; of an expected text without a letter of a-z, or a digit, that of its words as they are.

    >>> recall(["She lives in Oru.", "東京"], ["in Oru", "東"]).round(2).tolist()
    [0.5, 0.5]
    """
    out = np.zeros(len(expected))
    known = [i for i, text in enumerate(expected) if readable(text)]
    if known:
        out[known] = rouge([expected[i] for i in known], [given[i] for i in known])
    for i in set(range(len(expected))) - set(known):
        own, said = ([w.casefold() for w in words(t)] for t in (expected[i], given[i]))
        out[i] = common(own, said) / len(own) if own else 0.0
    return out


def knowledge(table: Collected, part: str = "forget") -> Rows:
    """Figure -> (n,) of the rows of ``part``: ``probability`` and ``extraction`` of the right answer; ``preference``, NaN
    for rows without a wrong answer; ``recall`` of the greedy answer, NaN for rows that were not answered.
    """
    scored = table.scored(part)
    index = [s.index for s in scored]
    out: Rows = {
        "probability": likelihood.probability([s.mean_logp for s in scored]),
        "extraction": likelihood.extraction_strength([s.hit for s in scored]),
    }
    said = {a.index: a for a in table.answers if (a.part, a.variant) == (part, "answer")}
    if said:
        values = dict(
            zip(said, recall([a.expected for a in said.values()], [a.text for a in said.values()]), strict=True)
        )
        out["recall"] = np.array([values.get(i, np.nan) for i in index])
    wrong = wrong_logp(table, part)
    if wrong:
        right = {s.index: s.mean_logp for s in scored}
        out["preference"] = np.array([_preference(right[i], wrong[i]) if i in wrong else np.nan for i in index])
    return out


def wrong_logp(table: Collected, part: str = "forget") -> dict[int, float]:
    """Row number -> the mean of the mean log-probabilities of its wrong answers, where it has any."""
    found: dict[int, list[float]] = {}
    for s in table.scores:
        if s.part == part and s.variant.startswith("wrong"):
            found.setdefault(s.index, []).append(s.mean_logp)
    return {i: float(np.mean(values)) for i, values in found.items()}


def wrong_rows(table: Collected, n: int, part: str = "forget") -> Rows:
    """(n,) probability and extraction strength of wrong answers, NaN for rows without: of what was not learnt."""
    out = {name: np.full(n, np.nan) for name in ("probability", "extraction")}
    for i, logp in wrong_logp(table, part).items():
        out["probability"][i] = np.exp(logp)
        hits = [s.hit for s in table.scores if (s.part, s.index) == (part, i) and s.variant.startswith("wrong")]
        out["extraction"][i] = likelihood.extraction_strength(hits).mean()
    return out


def otherwise(table: Collected, n: int) -> Array:
    """(n,) recall of the answers to paraphrased questions, NaN for rows without."""
    said = [a for a in table.answers if a.part == OTHERWISE]
    out = np.full(n, np.nan)
    if said:
        out[[a.index for a in said]] = recall([a.expected for a in said], [a.text for a in said])
    return out


def of_others(table: Collected, rows: int, shifts: int = 5) -> Array:
    """(n,) what the answers to other questions recall of each row's answer: the recall of who does not know this one.

    The mean over at most ``shifts`` other rows.
    """
    said = sorted((a for a in table.answers if (a.part, a.variant) == ("forget", "answer")), key=lambda a: a.index)
    out = np.full(rows, np.nan)
    turns = [k * len(said) // (shifts + 1) or k for k in range(1, min(shifts, len(said) - 1) + 1)]
    for turn in dict.fromkeys(turns):
        moved = [said[(i + turn) % len(said)].text for i in range(len(said))]
        value = recall([a.expected for a in said], moved)
        for a, v in zip(said, value, strict=True):
            out[a.index] = v if np.isnan(out[a.index]) else out[a.index] + v
    return np.asarray(out / max(1, len(set(turns))))


def _preference(right: float, wrong: float) -> float:
    return float(1 / (1 + np.exp(np.clip(wrong - right, -700, 700))))


# -- membership ----------------------------------------------------------------------------------------------------------
def member_scores(table: Collected, non_members: str, reference: Collected | None) -> Mapping[str, tuple[Array, Array]]:
    """Score -> (of the forget rows, of ``non_members``), higher for what was not seen."""
    own, beside = (counterfactual(t) if t is not None else None for t in (table, reference))
    assert own is not None
    if non_members == COUNTERFACTUAL:
        kept = {s.index for s in own.scored(COUNTERFACTUAL)}
        own, beside = (_only(t, kept) if t is not None else None for t in (own, beside))
        assert own is not None
    first, second = (membership.scores(own, part, beside) for part in ("forget", non_members))
    return {name: (first[name], second[name]) for name in first if name in second}


def counterfactual(table: Collected) -> Collected:
    """``table`` with the first wrong answers as a part of their own."""
    more = [replace(s, part=COUNTERFACTUAL, variant="answer") for s in table.scores if s.variant == "wrong0"]
    return replace(table, scores=(*table.scores, *more))


def _only(table: Collected, rows: set[int]) -> Collected:
    return replace(table, scores=tuple(s for s in table.scores if s.part != "forget" or s.index in rows))


def said_of(table: Collected, part: str) -> dict[int, str]:
    """Row number -> the greedy answer."""
    return {a.index: a.text for a in table.answers if (a.part, a.variant) == (part, "answer")}
