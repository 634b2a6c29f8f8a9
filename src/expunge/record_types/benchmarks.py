"""The keys of ``figures.json`` and ``compare.json``."""

# No `from __future__ import annotations`: it hides NotRequired from __required_keys__.
from typing import Any, NotRequired, TypedDict, final


# -- figures.json ---------------------------------------------------------------------------------------------------------
class FigureInfo(TypedDict):
    """One figure of one model."""

    name: str | None
    value: float | None
    n: float | None
    low: float | None
    high: float | None
    part: str | None
    note: str | None


class ModelFacts(TypedDict):
    """Which model was asked."""

    source: str | None
    fingerprint: str | None


class BenchData(TypedDict):
    """What was asked."""

    source: Any  # a name, or the names of several
    fingerprint: NotRequired[str | None]
    left_out: NotRequired[list[Any]]


class TaughtInfo(TypedDict):
    """The base model of a target that was taught, and the training arguments."""

    source: str | None
    training: dict[str, Any]


class UnlearningInfo(TypedDict):
    """The unlearning between target and model; ``record`` is the run's own."""

    name: str | None
    parameters: dict[str, Any]
    paper: str | None
    status: str | None
    summary: str | None
    adapter: str | None
    steps: float | None
    seconds: float | None
    record: str | None
    warnings: NotRequired[list[str]]


@final
class FiguresRecord(TypedDict):
    """``figures.json``: a benchmark's figures of a model, and of the models beside it."""

    schema: int | None
    expunge: str | None
    created: str | None
    command: NotRequired[str | None]
    benchmark: str | None
    defined_in: NotRequired[str | None]
    paper: str | None
    model: ModelFacts | None
    target: NotRequired[ModelFacts | None]
    retrained: NotRequired[ModelFacts | None]
    taught: NotRequired[TaughtInfo | None]
    unlearning: NotRequired[UnlearningInfo | None]
    data: BenchData
    metrics: NotRequired[list[str]]  # the user's own, by name or as FILE.py:NAME
    limit: NotRequired[float | None]
    dtype: str | None
    quantize: NotRequired[str | None]
    max_length: NotRequired[float | None]
    chat_template: NotRequired[bool | None]
    template_arguments: NotRequired[dict[str, Any] | None]
    backend: NotRequired[str | None]
    arguments: NotRequired[dict[str, Any]]  # this and the next of lm-evaluation-harness
    tasks: NotRequired[dict[str, Any]]
    seconds: float | None
    warnings: NotRequired[list[str]]
    private_files: NotRequired[list[str]]
    versions: dict[str, Any]
    figures: list[FigureInfo]
    beside: dict[str, list[FigureInfo]]


# -- compare.json ---------------------------------------------------------------------------------------------------------
class EqualBudget(TypedDict):
    """What every run may take: optimizer steps, and rows of each stream in a step."""

    steps: float | None
    rows: float | None


class RunSeconds(TypedDict):
    """Of the optimizer steps alone, of the whole run, and of asking the unlearned model."""

    steps: float | None
    run: float | None
    evaluation: float | None


class ComparedMethod(TypedDict):
    """The method of a run."""

    name: str | None
    parameters: dict[str, Any]
    paper: NotRequired[str | None]
    status: NotRequired[str | None]


class ComparedRun(TypedDict):
    """One run of a comparison; of one that failed ``said`` is why."""

    name: str | None
    label: str | None
    shown: str | None
    choice: dict[str, Any]
    given: dict[str, Any]
    seed: int | None
    training: dict[str, Any]
    folder: str | None
    done: bool | None
    method: ComparedMethod
    figures: list[FigureInfo]
    said: NotRequired[str | None]
    learning_rate: NotRequired[float | None]
    steps: NotRequired[float | None]
    tokens: NotRequired[float | None]
    seconds: NotRequired[RunSeconds]
    device: NotRequired[str | None]
    versions: NotRequired[dict[str, Any]]
    fingerprint: NotRequired[str | None]
    record: NotRequired[str | None]
    warnings: NotRequired[list[str]]


class ComparedModel(TypedDict):
    """The target or the retrained model, with its figures."""

    source: str | None
    fingerprint: str | None
    figures: list[FigureInfo]


@final
class CompareRecord(TypedDict):
    """``compare.json``: several methods on one benchmark."""

    schema: int | None
    expunge: str | None
    created: str | None
    command: str | None
    benchmark: str | None
    paper: str | None
    forget_figure: str | None
    forget_better: str | None
    utility_figure: str | None
    budget: EqualBudget
    adapter: str | None
    lora: dict[str, Any] | None
    training: dict[str, Any]
    rows: dict[str, Any]
    seeds: list[Any]
    unequal_trials: bool | None
    limit: float | None
    dtype: str | None
    max_length: float | None
    chat_template: bool | None
    backend: str | None
    data: BenchData
    target: ComparedModel | None
    retrained: NotRequired[ComparedModel | None]
    runs: list[ComparedRun]
    warnings: list[Any]
    versions: dict[str, Any]
    platform: str | None
