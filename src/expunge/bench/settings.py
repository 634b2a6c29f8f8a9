"""What decides a benchmark run, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from expunge import hub
from expunge.errors import InputError
from expunge.evaluation.custom import HELP, Names
from expunge.evaluation.probe import EvaluationOptions
from expunge.jobs import Address, Count
from expunge.settings import checked, extract_settings, full_names, split_pair
from expunge.unlearning import settings as recipe
from expunge.unlearning.settings import TABLES, Recipe

EVALUATION_OPTIONS = {f.name for f in dataclasses.fields(EvaluationOptions)}
EVALUATION_ONLY = ("limit", "dtype")  # not of the run, which takes all rows, in float32
SET_BY_BENCHMARK = ("forget", "retain", "compare_with", "compare_name", "title")  # settings of a run


class Bench(BaseModel):
    """Everything that decides a benchmark run.

    ``data``: a folder with the benchmark's files, instead of the Hub.  ``retrained``: a model that never saw the forget set.
    ``method``: what unlearns; without one the model is measured as it is.  ``teach``: the model is a base model that first
    learns the forget and the retain rows, with these training arguments; ``teach_retrained``: and, apart, the retain rows
    only.  ``model_name``, ``data_name``, ``retrained_name`` are written in place of the paths.
    ``jobs``, ``cluster``: of several models, how many at once and where (:mod:`expunge.bench.several`).
    ``how`` is how the models are asked; ``run`` holds the further settings of :class:`~expunge.unlearning.settings.Recipe`.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    benchmark: str
    model: str = Field(description="Hub id, folder, GGUF file or PEFT adapter folder.")
    out: str = Field("figures", description="Folder for figures.json, report.html and all that was made.")
    method: str | None = Field(
        None, description="Unlearn the benchmark's forget set first, with one of `expunge methods`."
    )
    teach: dict[str, Any] | None = None
    teach_retrained: bool = Field(False, description="And, apart, the retain rows only: that is the retrained model.")
    data: str | None = Field(None, description="Folder with the benchmark's files, instead of the Hub.")
    retrained: str | None = Field(
        None, description="A model that never saw the forget set: forget quality and PrivLeak need it."
    )
    metric: Names = Field(None, description=HELP, json_schema_extra={"metavar": "NAME"})
    model_name: str | None = Field(None, description="What records call the model, instead of its path.")
    data_name: str | None = Field(None, description="What records call the data, instead of their path.")
    retrained_name: str | None = Field(None, description="What records call the retrained model.")
    overwrite: bool = Field(False, description="Write over earlier figures in the folder.")
    jobs: Count = None
    cluster: Address = None
    how: EvaluationOptions = EvaluationOptions()
    run: dict[str, Any] = Field(default_factory=dict)


OWN_FIELDS = set(Bench.model_fields) - {"how", "run"}


def read_file(path: str | Path) -> dict[str, Any]:
    """The settings of a recipe that names a ``benchmark``; the table ``[teach]`` holds training arguments."""
    values = recipe.read(path)
    if "benchmark" not in values:
        raise InputError(f'{path} names no benchmark; write benchmark = "tofu/forget10", or run it with `expunge run`')
    beside = Path(path).parent / str(values["benchmark"])
    if beside.suffix == ".py" and beside.is_file():
        values["benchmark"] = str(beside)
    return values


def override(values: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``values`` with ``key=value`` settings: ``teach.KEY``, a field of :class:`Bench` or of an evaluation, or what a run
    takes.
    """
    pairs = list(pairs)
    teach = [split_pair(p.removeprefix("teach.")) for p in pairs if p.startswith("teach.") and "=" in p]
    out, rest = extract_settings(
        values, [p for p in pairs if not p.startswith("teach.")], (OWN_FIELDS | EVALUATION_OPTIONS) - {"teach"}
    )
    if teach:
        out["teach"] = full_names(out.get("teach") or {}, "[teach]") | dict(teach)
    return recipe.override(out, rest, others=OWN_FIELDS | EVALUATION_OPTIONS)


def make(values: Mapping[str, Any], where: str = "the benchmark run") -> Bench:
    """``values`` checked; the first thing that is wrong is one sentence."""
    values = recipe.with_training(values, where)
    hub.refuse(values, where)
    for key in values:
        if key in SET_BY_BENCHMARK:
            raise InputError(f"{where}: {key} is the benchmark's to say; leave it out, or use `expunge run`")
    shared = EVALUATION_OPTIONS & set(Recipe.model_fields) - set(EVALUATION_ONLY)
    of_run = {k: v for k, v in values.items() if k not in OWN_FIELDS and (k not in EVALUATION_OPTIONS or k in shared)}
    if not values.get("method"):
        of_run.pop("quantize", None)  # then of how the model is asked alone
    recipe.make({"model": "-", "forget": "-", **of_run}, where)  # raises for an unknown or mistyped setting
    idle = [key for table in TABLES.values() if table != "lora" for key in of_run.get(table, {})]
    idle += ["optimizer"] if of_run.get("optimizer") else []
    idle += ["adapter"] if of_run.get("adapter") and values.get("teach") is None else []
    if idle and not values.get("method"):
        raise InputError(f"{where}: {', '.join(idle)} is for unlearning; say with --method which method")
    own = {k: v for k, v in values.items() if k in OWN_FIELDS} | {"run": of_run}
    if isinstance(own.get("teach"), Mapping):
        own["teach"] = full_names(own["teach"], f"{where}, [teach]")
    own["how"] = {k: v for k, v in values.items() if k in EVALUATION_OPTIONS}
    return checked(Bench, own, where)
