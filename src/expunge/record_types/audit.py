"""The keys of ``audit.json``."""

# No `from __future__ import annotations`: it hides NotRequired from __required_keys__.
from typing import Any, NotRequired, TypedDict, final

from expunge.record_types.benchmarks import ModelFacts


class FindingInfo(TypedDict):
    """A figure that the verdict is made of; ``question``: gone, kept or back; ``outcome``: passed, partly, failed, unclear
    or noted; ``limit`` and ``severe``: where it is good, and where it is bad; ``better``: lower, higher or near.
    """

    name: str | None
    question: str | None
    family: str | None
    outcome: str | None
    value: float | None
    low: float | None
    high: float | None
    n: float | None
    limit: float | None
    severe: float | None
    better: str | None
    p_limit: float | None
    p_severe: float | None
    decides: bool
    meaning: str | None


class VerdictInfo(TypedDict):
    """The verdict, why, and what cannot be concluded."""

    word: str | None
    sentence: str | None
    findings: list[FindingInfo]
    not_concluded: list[Any]


class AuditFigure(TypedDict):
    """The mean of a figure over rows of a ``part`` under a ``model``."""

    part: str | None
    name: str | None
    model: str | None
    value: float | None
    low: float | None
    high: float | None
    n: float | None


# A difference has the key "from", and membership "tpr_at_0.1_percent", so these two are written as calls.
DifferenceInfo = TypedDict(
    "DifferenceInfo",
    {
        "part": str | None,
        "name": str | None,
        "from": str | None,
        "value": float | None,
        "low": float | None,
        "high": float | None,
        "n": float | None,
        "p": float | None,
        "equivalent": bool,
    },
)
MembershipInfo = TypedDict(
    "MembershipInfo",
    {
        "score": str | None,
        "model": str | None,
        "non_members": str | None,
        "auc": float | None,
        "low": float | None,
        "high": float | None,
        "tpr_at_1_percent": float | None,
        "tpr_at_0.1_percent": float | None,
        "members": float | None,
        "others": float | None,
    },
)


class EstimateInfo(TypedDict):
    """A value with its interval."""

    value: float | None
    low: float | None
    high: float | None


class CurvePoint(TypedDict):
    """What is known on average at one strength of an attack."""

    strength: float | None
    label: str | None
    unlearned: float | None
    control: float | None


class SeedInfo(TypedDict):
    """What a random attack brings back with one seed."""

    seed: int | None
    recovery: float | None
    excess: float | None


class AttackInfo(TypedDict):
    """An attack: its curve, what it brings back of what was lost, and of that what it does not bring to the control;
    ``half``: the strength that brings back half.  ``problem``: why it was not carried out.  ``seeds``: of a random attack
    with several seeds, whose means the figures are.
    """

    name: str | None
    family: str | None
    summary: str | None
    unit: str | None
    trains: bool
    scale: str | None
    problem: str | None
    curve: list[CurvePoint]
    recovery: EstimateInfo | None
    excess: EstimateInfo | None
    control_recovery: EstimateInfo | None
    half: float | None
    control_half: float | None
    n: float | None
    seeds: list[SeedInfo]


class AuditModel(ModelFacts):
    """A model of an audit; ``kind`` of the control: retrained or base; ``files``: SHA-256 of its folder or file."""

    kind: NotRequired[str | None]
    files: NotRequired[str | None]


class AuditRows(TypedDict):
    """One set: its rows, those that are measured, those that the attacker was given; ``file``: SHA-256 of its file."""

    source: str | None
    rows: float | None
    measured: float | None
    known: NotRequired[float | None]
    fingerprint: str | None
    file: NotRequired[str | None]


class WorstRow(TypedDict):
    """A row that is still known best; its texts only where they were asked for."""

    where: str | None
    recall: float | None
    probability: float | None
    control_recall: float | None
    question: NotRequired[str | None]
    expected: NotRequired[str | None]
    answer: NotRequired[str | None]
    before: NotRequired[str | None]


@final
class AuditRecord(TypedDict):
    """``audit.json``: an audit of a model that was made to forget."""

    schema: int | None
    kind: str | None
    expunge: str | None
    created: str | None
    command: str | None
    title: str | None
    request: str | None
    operator: str | None
    verdict: VerdictInfo
    models: dict[str, AuditModel]
    data: dict[str, AuditRows]
    rewritten: dict[str, Any]
    figures: list[AuditFigure]
    differences: list[DifferenceInfo]
    membership: list[MembershipInfo]
    attacks: list[AttackInfo]
    worst: list[WorstRow]
    examples: int | None
    policy: dict[str, Any]
    settings: dict[str, Any]
    seed: int | None
    evidence: dict[str, str]
    run: NotRequired[dict[str, Any] | None]
    seconds: float | None
    warnings: list[Any]
    private_files: list[str]
    versions: dict[str, Any]
    platform: str | None
