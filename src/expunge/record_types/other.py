"""The keys of records without a page: of reveal, taught weights, a release's steps, alternates and the guard."""

# No `from __future__ import annotations`: it hides NotRequired from __required_keys__.
from typing import Any, NotRequired, TypedDict

from expunge.record_types.benchmarks import ModelFacts


class RevealRecord(TypedDict):
    """``reveal.json``: a search and, when it has ended, what it found."""

    schema: int | None
    expunge: str
    created: str
    model: ModelFacts
    settings: dict[str, Any]
    versions: dict[str, Any]
    command: NotRequired[str | None]
    instructions: NotRequired[int]
    queries: NotRequired[int]
    answers: NotRequired[int]
    revealed: NotRequired[int]
    dropped: NotRequired[dict[str, int]]
    best: NotRequired[dict[str, float]]
    seconds: NotRequired[float]
    private_files: NotRequired[list[str]]
    output: NotRequired[str]
    warnings: NotRequired[list[str]]


class MadeRecord(TypedDict):
    """``made.json``: what weights were made of; the keys that are not required are those of a taught model."""

    schema: int | None
    settings: dict[str, Any]
    model: str
    data: dict[str, str]
    output: str
    source: NotRequired[str]
    rows: NotRequired[int]
    steps: NotRequired[int]
    loss: NotRequired[list[float] | None]
    seconds: NotRequired[float]
    versions: NotRequired[dict[str, str]]


class StepRecord(TypedDict):
    """``steps/NN.json`` of a release; a step with an update names its weights."""

    schema: int | None
    index: int
    figures: dict[str, dict[str, float | str | None]]
    answers: dict[str, list[str]]
    penalty: float | None
    seconds: float
    optimizer_steps: int
    log: list[dict[str, Any]]
    warnings: list[str]
    made_of: dict[str, Any]
    config: NotRequired[dict[str, Any]]
    weights: NotRequired[str]


class AlternatesRecord(TypedDict):
    """``alternates.json``: the alternate answer to each forget row."""

    schema: int | None
    made_of: dict[str, Any]
    alternates: list[str]


class GuardRecord(TypedDict):
    """What ``expunge guard measure --out`` writes."""

    model: str
    targets: int
    settings: dict[str, Any]
    figures: dict[str, dict[str, Any]]
