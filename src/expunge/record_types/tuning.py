"""The keys of ``tune.json``, which `expunge tune` writes."""

# No `from __future__ import annotations`: it hides NotRequired from __required_keys__.
from typing import Any, NotRequired, TypedDict, final

from expunge.record_types.benchmarks import EqualBudget, FigureInfo


class IntermediateValue(TypedDict):
    """The score of a trial while it trained."""

    step: float | None
    value: float | None


class TunedRun(TypedDict):
    """One trial: ``choice``: what was tried; ``state``: finished, pruned or failed (``said`` is why).

    ``score_first``: of the half of the rows by which the best is chosen; ``score_second``, ``forgotten``, ``retained`` and
    ``figures``: of the other half.  ``front``: whether no other trial forgets and retains at least as well there.
    """

    name: str | None
    label: str | None
    number: int | None
    state: str | None
    choice: dict[str, Any]
    steps: NotRequired[float | None]
    learning_rate: NotRequired[float | None]
    seconds: NotRequired[float | None]
    device: NotRequired[str | None]
    said: NotRequired[str | None]
    intermediate: list[IntermediateValue]
    score_first: NotRequired[float | None]
    score_second: NotRequired[float | None]
    forgotten: NotRequired[float | None]
    retained: NotRequired[float | None]
    figures: list[FigureInfo]
    figures_first: list[FigureInfo]
    record: NotRequired[str | None]
    warnings: NotRequired[list[str]]
    front: bool | None


class TunedMethod(TypedDict):
    """A method: the parameters that stayed, what was searched, how its trials ended, and the best one with its recipe."""

    label: str | None
    parameters: dict[str, Any]
    search: dict[str, Any]
    finished: float | None
    pruned: float | None
    failed: float | None
    best: str | None
    recipe: str | None


class TunedModel(TypedDict):
    """The target or the reference model, with its figures on the second half of the rows, and on the first."""

    source: str | None
    fingerprint: str | None
    figures: list[FigureInfo]
    figures_first: list[FigureInfo]


@final
class TuneRecord(TypedDict):
    """``tune.json``: the trials of several methods with equal budgets; ``rows``: half -> part -> their number."""

    schema: int | None
    expunge: str | None
    created: str | None
    command: str | None
    benchmark: str | None
    objective: str | None
    forget_figure: str | None
    forget_better: str | None
    utility_figure: str | None
    trials: float | None
    budget: EqualBudget
    rows: dict[str, Any]
    seed: int | None
    adapter: str | None
    training: dict[str, Any]
    prune: str | None
    target: TunedModel | None
    reference: NotRequired[TunedModel | None]
    methods: list[TunedMethod]
    runs: list[TunedRun]
    warnings: list[str]
    versions: dict[str, Any]
    platform: str | None
