"""The verdict: a pure function from findings (figures with intervals and limits) to a word and its reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from expunge.audit.policy import Policy
from expunge.stats import Estimate, holm

Question = Literal["basis", "gone", "kept", "back"]
Outcome = Literal["passed", "partly", "failed", "unclear", "noted"]
WORDS = ("forgotten", "partly", "not forgotten", "model damaged", "cannot be told")
REACHED = {"forgotten": ("forgotten",), "partly": ("forgotten", "partly")}  # what `fail_unless` accepts


@dataclass(frozen=True)
class Finding:
    """A figure with its interval, and two limits: the good side of ``limit``, and beyond ``severe``.

    ``better``: on which side of ``limit`` it is good; ``near``: within ± ``limit``.  ``p_limit``, ``p_severe``: p-values of
    "it is on the good side of" that limit.  ``family``: those that Holm's correction is over, and what a policy requires;
    ``decides``: whether it can change the verdict; ``hidden``: an attack that trains nothing brought it back.
    """

    name: str
    question: Question
    family: str
    value: float
    low: float
    high: float
    n: int
    limit: float
    severe: float
    better: Literal["lower", "higher", "near"]
    p_limit: float
    p_severe: float
    meaning: str
    decides: bool = True
    hidden: bool = False
    outcome: Outcome = "noted"

    @property
    def good(self) -> bool:
        """Whether the value, whatever its interval, is on the good side of the limit."""
        if self.better == "near":
            return abs(self.value) <= self.limit
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit

    @property
    def reaches_severe(self) -> bool:
        """Whether the interval reaches the second limit."""
        if self.better == "near":
            return self.low < -self.severe or self.high > self.severe
        return self.high > self.severe if self.better == "lower" else self.low < self.severe

    @property
    def shown(self) -> bool:
        """Whether the whole interval is."""
        if self.better == "near":
            return -self.limit <= self.low and self.high <= self.limit
        return self.high <= self.limit if self.better == "lower" else self.low >= self.limit


@dataclass(frozen=True)
class Verdict:
    """One of :data:`WORDS`, why in a sentence, and the findings it was made of, each with its outcome."""

    word: str
    sentence: str
    findings: tuple[Finding, ...]


def finding(
    name: str,
    question: Question,
    family: str,
    estimate: Estimate,
    policy: Policy,
    *,
    limit: float,
    severe: float,
    better: Literal["lower", "higher", "near"],
    meaning: str,
    decides: bool = True,
    hidden: bool = False,
) -> Finding:
    """A :class:`Finding` of an estimate."""
    interval = estimate.interval(policy.confidence)

    def p(of: float) -> float:
        if better == "lower":
            return estimate.p_at_most(of)
        if better == "higher":
            return estimate.p_at_least(of)
        return min(1.0, 2 * min(estimate.p_at_most(of), estimate.p_at_least(-of)))

    return Finding(
        name, question, family, estimate.value, interval.low, interval.high, estimate.n, limit, severe, better,
        p(limit), p(severe), meaning, decides, hidden,
    )  # fmt: skip


def decide(findings: Sequence[Finding], policy: Policy, *, basis: str | None = None) -> Verdict:
    """The verdict; ``basis``: why nothing can be told, where that is so."""
    found = judged(findings, policy)
    deciding = [f for f in found if f.decides]
    of = {q: [f for f in deciding if f.question == q] for q in ("gone", "kept", "back")}
    bad = [f for f in deciding if f.outcome in ("failed", "partly")]
    lacking = _lacking(deciding, policy)
    if basis is not None:
        word, sentence = "cannot be told", basis
    elif damage := [f for f in of["kept"] if f.outcome == "failed"]:
        word, sentence = "model damaged", _because(damage)
    elif left := [
        f for f in (*of["gone"], *of["back"]) if f.outcome == "failed" and (f.family == "remaining" or f.hidden)
    ]:
        word, sentence = "not forgotten", _because(left)
    elif bad:
        word, sentence = "partly", _because(bad)
    elif lacking:
        over = [f for f in deciding if f.family in policy.require and not f.good]
        word = "partly" if over else "cannot be told"
        sentence = _because(over) if over else lacking
    else:
        word, sentence = "forgotten", _because(of["gone"])
    return Verdict(word, sentence, tuple(found))


def judged(findings: Sequence[Finding], policy: Policy) -> list[Finding]:
    """``findings`` with their outcomes; p-values are corrected over each family."""
    out = list(findings)
    for family in dict.fromkeys(f.family for f in findings):
        numbers = [i for i, f in enumerate(findings) if f.family == family]
        limits = holm([findings[i].p_limit for i in numbers])
        severes = holm([findings[i].p_severe for i in numbers])
        for i, p_limit, p_severe in zip(numbers, limits, severes, strict=True):
            out[i] = replace(findings[i], outcome=_outcome(findings[i], p_limit, p_severe, policy.alpha))
    return out


def _outcome(f: Finding, p_limit: float, p_severe: float, alpha: float) -> Outcome:
    if p_severe < alpha:
        return "failed"
    if p_limit < alpha:
        return "partly"
    return "passed" if f.shown else "unclear"


def _lacking(deciding: Sequence[Finding], policy: Policy) -> str:
    """What a required family lacks, in a sentence; empty where nothing is lacking.

    A family is shown to be good where every value is, at least one interval is whole, and none reaches the second limit.
    """
    for family in policy.require:
        members = [f for f in deciding if f.family == family]
        if not members:
            return f"the policy requires a figure of {family}, and there is none that could be measured"
        open_ones = [f for f in members if f.outcome == "unclear" and (f.reaches_severe or not f.good)]
        if not any(f.shown for f in members):
            open_ones = open_ones or [f for f in members if f.outcome == "unclear"]
        if open_ones:
            worst = max(open_ones, key=needed)
            rows = needed(worst)
            more = f"; about {rows} rows would tell" if worst.n < rows < 100_000 and worst.good else ""
            return (
                f"{worst.meaning} is {worst.value:.2f} [{worst.low:.2f}, {worst.high:.2f}], and with {worst.n} rows it is "
                f"not shown to be on the good side of {worst.limit:g}{more}"
            )
    return ""


def needed(f: Finding) -> int:
    """About how many rows would show a good value to be good: an interval is as long as one over the square root of rows."""
    edge = f.limit if f.better != "near" or f.value >= 0 else -f.limit
    room, half = abs(edge - f.value), max(f.high - f.value, f.value - f.low)
    return math.ceil(f.n * (half / room) ** 2) if room > 1e-9 else 0


def _because(findings: Sequence[Finding]) -> str:
    """The findings that were worst, in a sentence."""
    order = sorted(findings, key=lambda f: ("failed", "partly", "unclear", "passed", "noted").index(f.outcome))
    said = [f"{f.meaning} is {f.value:.2f} [{f.low:.2f}, {f.high:.2f}]" for f in order[:2]]
    return "; ".join(said)


def reached(word: str, wanted: str | None) -> bool:
    """Whether a verdict is at least what ``fail_unless`` wants."""
    return wanted is None or word in REACHED[wanted]
