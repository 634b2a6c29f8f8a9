"""The keys of ``run.json``, which `expunge run` and `expunge release` write."""

# No `from __future__ import annotations`: it hides NotRequired from __required_keys__.
from typing import Any, NotRequired, TypeAlias, TypedDict

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
    quantized: NotRequired[dict[str, Any]]  # how the base is held in 4 or 8 bits; the fingerprint is of its files


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
    """A run that was interrupted is carried out in parts: when one began, after which step, its seconds, and in how many
    processes, where they were several.
    """

    began: str | None
    from_step: float | None
    seconds: float | None
    processes: NotRequired[int]


class StopInfo(TypedDict):
    """Why training ended before its last step: ``step``: the optimizer steps behind the weights that came out."""

    reason: str | None
    step: float | None
    sentence: str | None
    figures: dict[str, Any]


class Probe(TypedDict):
    """What a utility guard saw after a step."""

    step: float | None
    probability: float | None
    kept: float | None


class KeepInfo(TypedDict):
    """A utility guard: the share that had to be kept of ``start``, the model's probability of rows before training."""

    threshold: float | None
    figure: str | None
    rows: float | None
    every: float | None
    start: float | None
    probes: list[Probe]


class LevelInfo(TypedDict):
    """How far the forget set is from its level, in nats a token: the mean ``difference`` over ``rows`` with its 90 %
    interval, against ``margin``; ``verdict``: short, near, at or beyond.  ``source``: ``model``, what gave the level is
    ``model``; ``model and holdout``, which was calibrated on holdout rows by a ``temperature`` and a ``shift``;
    ``holdout``; or ``alternates``, which the start model made up.  ``uncertainty``: half of the 90 % interval of the level's
    own mean, from the holdout rows; None where nothing says it.  ``in_context``: whether the model that gave the level read
    rows to keep before each row.  It was tested ``every`` so many steps; the weights lie
    ``share_of_last_steps`` of the way from the test before to the last step, and keep the share ``kept`` of the probability
    of retain rows.
    """

    source: NotRequired[str | None]
    model: str | None
    temperature: NotRequired[float | None]
    shift: NotRequired[float | None]
    uncertainty: NotRequired[float | None]
    in_context: NotRequired[bool | None]
    rows: float | None
    distance_before: float | None
    margin: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: str | None
    every: NotRequired[float | None]
    share_of_last_steps: NotRequired[float | None]
    kept: NotRequired[float | None]


class RetainBudget(TypedDict):
    """A budget on the retain loss: the loss before training and at the end, the mean of the last logged ``steps``."""

    limit: float | None
    start: float | None
    end: float | None
    steps: float | None
    multiplier: float | None
    max_multiplier: float | None
    met: bool | None


class Halving(TypedDict):
    """Memory ran out in ``step``: micro-batches have ``rows`` rows from there on."""

    step: float | None
    rows: float | None


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
    stopped: NotRequired[StopInfo | None]
    failed: NotRequired[str | None]
    keep: NotRequired[KeepInfo | None]
    level: NotRequired[LevelInfo | None]
    budget: NotRequired[RetainBudget | None]
    out_of_memory: NotRequired[list[Halving]]
    warnings: list[Any]
    private_files: NotRequired[list[str]]  # of mode 600: they quote forget data, or what a model answered to it
    versions: dict[str, Any]
    platform: str | None
    peak_memory_bytes: float | None
