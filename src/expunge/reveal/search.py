"""The search: which instructions to ask, the scores of their answers, and which answers make up the forget set.

Rounds of queries: a query asks one instruction several times and scores the answers by relevance and diversity; the bandit
chooses the next.  After a round, its best instructions are added to the examples, the model writes more like them, and each
of those is answered once: the harvest.  Diversity is relative to the answers of earlier rounds, so that a round does not
collect the same answers again.

The log is a list of entries, written as it grows; everything else is computed from it, so an interrupted search resumes
from its log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from expunge.errors import InputError
from expunge.generation.sample import Answer, Form
from expunge.reveal import bandit
from expunge.reveal.diversity import added_diversity, harmonic
from expunge.reveal.embed import Embed
from expunge.scorers import Scorer
from expunge.scorers.filters import filter_texts

ROUND_OFF = 1e-6  # a score below is round-off
Chooser = Callable[[Tensor, bandit.Observed, Sequence[bool]], int]


@dataclass(frozen=True)
class Plan:
    """Size of the search and filters of its answers.

    ``rounds`` of ``queries`` instructions, ``responses`` answers to each; the first ``initial`` of the first round are the
    first arms; the bandit of a later round starts with as many of the best so far.  The ``best`` instructions
    of a round are harvested: ``harvest`` answers each.  ``weight`` is the weight of relevance in the score.  An answer is
    selected if its relevance is at least ``threshold``, it has ``shortest`` to ``longest`` tokens and a perplexity of at
    most ``max_perplexity`` under the model itself, and is no (near) duplicate of an earlier one.
    """

    rounds: int = 3
    queries: int = 20
    initial: int = 10
    responses: int = 16
    best: int = 3
    harvest: int = 32
    weight: float = 0.5
    threshold: float = 0.5
    shortest: int = 4
    longest: int = 512
    max_perplexity: float = 50.0

    def __post_init__(self) -> None:
        least = {"rounds": 1, "queries": 1, "initial": 1, "responses": 1, "shortest": 1, "best": 0, "harvest": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, not {getattr(self, name)}")
        if self.responses < 2:
            raise InputError("one response has no diversity; ask for at least 2")
        if self.shortest > self.longest:
            raise InputError(f"no answer is at least shortest = {self.shortest} and at most {self.longest} tokens long")
        if not self.max_perplexity >= 1:
            raise InputError(f"max_perplexity must be at least 1, as every perplexity is, not {self.max_perplexity}")


@dataclass(frozen=True)
class Entry:
    """One query or one harvest: the arm, its questions and answers, and the ``relevance`` of each answer.

    ``scores`` of a query: ``relevance``, ``fluent`` (share of the answers), ``diversity``, ``score``.
    """

    kind: Literal["query", "harvest"]
    round: int
    arm: int
    questions: tuple[str, ...]
    answers: tuple[Answer, ...]
    relevance: tuple[float, ...]
    scores: dict[str, float]


@dataclass(frozen=True)
class Tools:
    """The functions that a search calls.

    ``ask(questions, seed)`` answers each once; ``vary(arm, examples, n, seed)`` lets an arm write n instructions after
    further examples; ``centre`` (D,) is the mean embedding of neutral texts.
    """

    ask: Callable[[Sequence[str], int], list[Answer]]
    vary: Callable[[int, Sequence[str], int, int], list[str]]
    relevance: Scorer
    embed: Embed
    centre: np.ndarray
    choose: Chooser


@dataclass(frozen=True)
class Revealed:
    """The answers of the forget set as (entry, index in the entry); ``dropped``: {reason: number of answers}."""

    answers: tuple[tuple[Entry, int], ...]
    dropped: dict[str, int]


def search(
    arms: Sequence[str], features: Tensor, plan: Plan, tools: Tools, *, past: Sequence[Entry] = ()
) -> Iterator[Entry]:
    """The entries of a whole search, those of ``past`` first; each is yielded as soon as it is complete.

    ``arms``: the instruction of each, all different; ``features`` (N, d).  The search ends early when no arm is left.
    """
    log: list[Entry] = []
    logged = iter(past)
    for r in range(plan.rounds):
        collected = _embedded([e.answers[i].text for e, i in revealed(log, plan).answers], tools)
        begin = len(log)
        queries = [e for e in log if e.kind == "query"]
        observed = [(e.arm, score_answers(e.answers, e.relevance, collected, plan, tools)["score"]) for e in queries]
        observed = sorted(observed, key=lambda pair: -pair[1])[: plan.initial]
        asked_arms = {e.arm for e in queries}
        for _ in range(min(plan.queries, len(arms) - len(asked_arms))):
            entry = next(logged, None)
            if entry is None:
                arm = _next_arm(features, observed, asked_arms, plan, tools)
                entry = _query(arm, arms[arm], r, len(log), collected, plan, tools)
            log.append(entry)
            asked_arms.add(entry.arm)
            observed.append((entry.arm, entry.scores["score"]))
            yield entry
        scored = (e for e in log[begin:] if e.scores["score"] > ROUND_OFF)
        best = sorted(scored, key=lambda e: -e.scores["score"])[: plan.best]
        for e in best if plan.harvest else ():
            entry = next(logged, None) or _harvest(e.arm, [b.questions[0] for b in best], r, len(log), plan, tools)
            log.append(entry)
            yield entry


def _next_arm(
    features: Tensor, observed: Sequence[tuple[int, float]], asked_arms: set[int], plan: Plan, tools: Tools
) -> int:
    """The arm to ask next: the first that was not asked yet, until the bandit has ``initial`` observations.

    The bandit gets scores divided by the best one: those of later rounds are small, since few answers are new by then, and
    its exploration should not depend on that.
    """
    allowed = [i not in asked_arms for i in range(len(features))]
    if len(observed) < plan.initial:
        return allowed.index(True)
    best = max(score for _, score in observed)
    return tools.choose(features, [(i, score / best if best > ROUND_OFF else 0.0) for i, score in observed], allowed)


def _query(arm: int, text: str, r: int, seed: int, collected: np.ndarray, plan: Plan, tools: Tools) -> Entry:
    questions = (text,) * plan.responses
    answers = tuple(tools.ask(questions, seed))
    relevance = tuple(tools.relevance([a.text for a in answers]).tolist())
    scores = score_answers(answers, relevance, collected, plan, tools)
    return Entry("query", r, arm, questions, answers, relevance, scores)


def _harvest(arm: int, examples: Sequence[str], r: int, seed: int, plan: Plan, tools: Tools) -> Entry:
    questions = tuple(q for q in tools.vary(arm, examples, plan.harvest, seed) if q)
    answers = tuple(tools.ask(questions, seed))
    return Entry("harvest", r, arm, questions, answers, tuple(tools.relevance([a.text for a in answers]).tolist()), {})


def score_answers(
    answers: Sequence[Answer], relevance: Sequence[float], collected: np.ndarray, plan: Plan, tools: Tools
) -> dict[str, float]:
    r"""The scores of the answers to one instruction.

    .. math:: S = \Bigl(\frac{w}{R} + \frac{1 - w}{D}\Bigr)^{-1}

    R is the mean relevance, that of an empty answer or one above ``max_perplexity`` counted as 0 (gibberish is diverse, and
    a classifier may take it for relevant); D the diversity of the others that was not ``collected`` (m, D) before.
    """
    fluent = [i for i, a in enumerate(answers) if a.text and a.perplexity <= plan.max_perplexity]
    r = sum(relevance[i] for i in fluent) / len(answers)
    d = 0.0
    if len(fluent) > 1:
        d = added_diversity(tools.embed([answers[i].text for i in fluent]), collected, mean=tools.centre)
    return {
        "relevance": r,
        "fluent": len(fluent) / len(answers),
        "diversity": d,
        "score": harmonic(r, d, plan.weight),
    }


def revealed(log: Sequence[Entry], plan: Plan) -> Revealed:
    """The forget set of ``log``: every answer that passes ``plan``'s filters, in the order of the log.

    An answer without text (a few line breaks, say) has no tokens here, whatever its relevance.
    """
    pairs = [(e, i) for e in log for i in range(len(e.answers))]
    filtered = filter_texts(
        [f"{e.questions[i]} {e.answers[i].text}" for e, i in pairs],
        relevance=[e.relevance[i] for e, i in pairs],
        threshold=plan.threshold,
        lengths=[e.answers[i].tokens if e.answers[i].text else 0 for e, i in pairs],
        shortest=plan.shortest,
        longest=plan.longest,
        perplexity=[e.answers[i].perplexity for e, i in pairs],
        cap=plan.max_perplexity,
    )
    return Revealed(
        tuple(pairs[k] for k in filtered.indices), {reason: n for reason, n in filtered.dropped.items() if n}
    )


def row(e: Entry, i: int, form: Form) -> dict[str, Any]:
    """An answer as a row of data, prompt and answer under the names of ``form``, with its origin."""
    a = e.answers[i]
    return {
        form.fields[0]: form.prompt(e.questions[i]),
        form.fields[1]: a.text,
        "relevance": e.relevance[i],
        "perplexity": a.perplexity,
        "tokens": a.tokens,
        "found_by": e.kind,
        "round": e.round,
        "arm": e.arm,
    }


def _embedded(texts: Sequence[str], tools: Tools) -> np.ndarray:
    return tools.embed(texts) if texts else np.zeros((0, len(tools.centre)))


# -- the log on disk ------------------------------------------------------------------------------------------------------
def read_log(file: Path) -> list[Entry]:
    """The entries in ``file``; a last line that an interruption cut is left out, any other that is none is an InputError."""
    if not file.exists():
        return []
    # Bytes, for the cut may be inside a letter; no splitlines, for a text may hold other line separators.
    *lines, _ = file.read_bytes().split(b"\n")
    return [_entry(line, f"{file}, line {n}") for n, line in enumerate(lines, 1)]


def _finite(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as it was logged; a perplexity that was no finite number is above every limit."""
    return {k: math.inf if k == "perplexity" and v is None else v for k, v in answer.items()}


def _entry(line: bytes, where: str) -> Entry:
    try:
        values = json.loads(line)
        answers = tuple(Answer(**_finite(a)) for a in values.pop("answers"))
        for name in ("questions", "relevance"):
            values[name] = tuple(values[name])
        return Entry(answers=answers, **values)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{where}: no entry of a search; restore the file, or start again with --overwrite") from None
