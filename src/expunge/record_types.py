"""The keys of every file that expunge writes and reads again.

A page reads ``record.complete(RunRecord, …)`` by index, ``record["steps"]``, so a key that no record has is a type error.
``NotRequired`` says that not every writer has a key.
"""

# No `from __future__ import annotations`: it hides NotRequired from __required_keys__.
from typing import Any, NotRequired, TypeAlias, TypedDict, final

Figures: TypeAlias = dict[str, dict[str, float | None]]  # part -> name -> value


# -- run.json -------------------------------------------------------------------------------------------------------------
class MethodInfo(TypedDict):
    """A method and where it comes from."""

    name: str | None
    parameters: dict[str, Any]
    paper: str | None
    status: str | None
    summary: str | None
    combiner: str | None
    objectives: dict[str, Any]
    chosen: NotRequired[dict[str, Any]]


class ModelInfo(TypedDict):
    """The model that a run begins with."""

    source: str | None
    fingerprint: str | None
    parameters: float | None
    trainable: float | None
    adapter: str | None
    adapter_config: dict[str, Any] | None
    dtype: str | None
    trains: NotRequired[str | None]


class OutputInfo(TypedDict):
    """The weights that a run wrote.

    ``fingerprint``: of the model as the next run loads it, in the number format ``dtype``; ``files``: of the files (in older
    records ``fingerprint`` is that); ``check``: the loss of a few rows in memory and from the files; ``rank``: of an adapter
    that was trained on top of another.
    """

    path: str | None
    fingerprint: str | None
    dtype: NotRequired[str | None]
    files: NotRequired[str | None]
    check: NotRequired[dict[str, Any] | None]
    rank: NotRequired[dict[str, Any] | None]


class ParentInfo(TypedDict):
    """The earlier run that wrote the model: its folder, and what its record says of model and output."""

    run: str | None
    created: str | None
    method: str | None
    fingerprint: str | None
    model: str | None


class DataInfo(TypedDict):
    """One set of rows."""

    source: str | None
    rows: float | None
    fingerprint: str | None
    pieces: NotRequired[float | None]
    tokens: NotRequired[float | None]
    tokens_used: NotRequired[float | None]


class ReadingInfo(TypedDict):
    """How rows became tokens."""

    columns: dict[str, str]
    assistant_turns: str | None
    max_length: float | None
    template: dict[str, Any] | None


class Example(TypedDict):
    """One row with what each model answered."""

    set: str | None
    question: str | None
    expected: str | None
    before: str | None
    after: str | None
    reference: str | None


class ReleaseStep(TypedDict):
    """One step of a release."""

    step: float | None
    figures: Figures
    penalty: float | None
    seconds: float | None


class Budget(TypedDict):
    """The worst value that a watched figure may take."""

    relative: float | None
    limit: float | None


class Truncation(TypedDict):
    """What an adapter of a lower rank lost."""

    rank: float | None
    overall: float | None
    modules: dict[str, Any]


class ReleaseInfo(TypedDict):
    """The steps of a release, and which one is the result."""

    trajectory: list[ReleaseStep]
    kept: float | None
    stopped: str | None
    forget_figure: str | None
    utility_figure: str | None
    better: str | None
    budget: Budget | None
    svd_error: Truncation | None


class RunPart(TypedDict):
    """A run that was interrupted is carried out in parts: when one began, after which step, and its seconds."""

    began: str | None
    from_step: float | None
    seconds: float | None


class RunRecord(TypedDict):
    """``run.json``: what ``expunge run`` and ``expunge release`` did."""

    schema: int | None
    expunge: str | None
    created: str | None
    command: str | None
    title: str | None
    method: MethodInfo
    model: ModelInfo
    parent: NotRequired[ParentInfo | None]
    output: OutputInfo
    data: dict[str, DataInfo]
    reading: NotRequired[ReadingInfo | None]
    training: dict[str, Any]
    seed: int | None
    device: str | None
    steps: list[dict[str, Any]]
    tokens: NotRequired[float | None]
    before: Figures
    after: Figures
    reference: Figures | None
    reference_name: str | None
    examples: list[Example]
    release: NotRequired[ReleaseInfo | None]
    seconds: float | None
    parts: NotRequired[list[RunPart]]
    warnings: list[Any]
    private_files: NotRequired[list[str]]  # of mode 600: they quote forget data, or what a model answered to it
    versions: dict[str, Any]
    platform: str | None
    peak_memory_bytes: float | None


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


# -- records without a page -----------------------------------------------------------------------------------------------
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
