"""What decides a comparison, as a value, and the trials that it comes down to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from expunge import bench
from expunge.bench.settings import Bench
from expunge.errors import InputError, nearest
from expunge.jobs import Address, Count, Jobs
from expunge.method import entry
from expunge.settings import ALIASES, check_pairs, checked, extract_settings, full_names, split_pair
from expunge.training.arguments import names as training_names
from expunge.unlearning import settings as recipe

RUNS = "runs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
FIGURES = {  # (forget, utility) where the recipe says nothing, by the first word of a benchmark's name
    "tofu": ("forget/probability", "all/model_utility"),
    "muse": ("forget_qa/knowmem", "retain_qa/knowmem"),
}
BUDGET_ARGUMENTS = ("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps")
UNSUPPORTED = {  # what a benchmark run takes, and where a comparison has it
    "method": "the table [methods.NAME]",
    "parameters": "the table [methods.NAME]",
    "seed": "seeds",
    "teach": "`expunge bench --teach`, whose OUT/target is then the model",
    "teach_retrained": "`expunge bench --teach-retrained`, whose OUT/retrained is then the retrained model",
}
Listed = BeforeValidator(lambda value: value.strip("[] ").split(",") if isinstance(value, str) else value)


class Entry(BaseModel):
    """One method of a comparison: the table ``[methods.NAME]``.

    ``method``: NAME if it is not given; ``training``: arguments of its own; ``grid``: parameter or training argument -> the
    values to try, every combination of them.
    """

    model_config = ConfigDict(extra="forbid")
    method: str
    parameters: dict[str, Any] = {}
    training: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}


class Compare(BaseModel):
    """Everything that decides a comparison.

    ``methods``: NAME -> what runs under that name; ``seeds``: every method runs with each.  ``forget_figure`` and
    ``utility_figure``: what is drawn, as ``part/name`` of the benchmark's table; ``forget_better``: which way is forgotten.
    ``keep``: which unlearned weights stay on disk: adapters, all or none.  ``unequal_trials`` allows methods more trials
    than others, and the report says so.  ``overwrite``: runs that are there with other settings are made again.
    ``jobs``, ``cluster``: how many runs at once, and where (:mod:`expunge.jobs`); they change no figure.
    ``shared``: what every run takes, as ``expunge bench`` does.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    methods: Annotated[dict[str, Entry], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Listed, Field(min_length=1)] = [0]
    forget_figure: str | None = Field(
        None, description="The forget figure to draw, as part/name (forget/rouge_l_recall)."
    )
    utility_figure: str | None = Field(
        None, description="The utility figure to draw, as part/name (retain/probability)."
    )
    forget_better: Literal["lower", "higher"] = "lower"
    keep: Literal["none", "adapters", "all"] = Field(
        "adapters",
        description="Which unlearned weights stay on disk.",
        json_schema_extra={"metavar": "none|adapters|all"},
    )
    unequal_trials: bool = False
    out: str = Field("comparison", description="Folder for compare.json, the figure, report.html and all runs.")
    overwrite: bool = Field(False, description="Make runs again that are there with other settings.")
    jobs: Count = None
    cluster: Address = None
    shared: dict[str, Any] = Field(default_factory=dict)

    @property
    def figures(self) -> tuple[str, str]:
        """What is drawn: a figure of the forget set and one of utility."""
        usual = FIGURES.get(str(self.shared.get("benchmark")).split("/")[0], (None, None))
        return self.forget_figure or usual[0] or "", self.utility_figure or usual[1] or ""

    @property
    def spread(self) -> Jobs:
        """How many runs at once, and where."""
        return Jobs(self.jobs, self.cluster)


OWN_FIELDS = set(Compare.model_fields) - {"methods", "shared"}


@dataclass(frozen=True)
class Trial:
    """One run of a comparison: ``name`` is its folder, ``label`` the method's NAME, ``choice`` what its grid set."""

    name: str
    label: str
    choice: Mapping[str, Any]
    seed: int
    settings: Bench

    @property
    def shown(self) -> str:
        """The label, with what its grid set.

        >>> Trial("", "npo", {"beta": 0.5}, 0, None).shown
        'npo beta=0.5'
        """
        return " ".join([self.label, *(f"{k}={v}" for k, v in self.choice.items())])


def read_file(path: str | Path) -> dict[str, Any]:
    """The settings of a recipe with a table ``[methods.NAME]`` for each method; paths are relative to the recipe."""
    values = bench.read_file(path)
    if not isinstance(values.get("methods"), dict):
        raise InputError(
            f"{path} has no methods to compare; write a table [methods.npo] for each, or use `expunge bench`"
        )
    return values


def override(values: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``values`` with ``key=value`` settings: ``methods.NAME.KEY``, a field of :class:`Compare`, or what every run takes."""
    pairs = list(pairs)
    check_pairs(pairs)
    tables = [pair for pair in pairs if pair.startswith("methods.") and "=" in pair]
    out, rest = extract_settings(values, [pair for pair in pairs if pair not in tables], OWN_FIELDS)
    for key, value in map(split_pair, tables):
        out["methods"] = _set(out.get("methods", {}), key.removeprefix("methods."), value)
    return bench.override(out, rest)


def make(values: Mapping[str, Any], where: str = "the comparison") -> Compare:
    """``values`` checked as far as that goes without data; the first thing that is wrong is one sentence."""
    values = recipe.with_training(values, where)
    for key, instead in UNSUPPORTED.items():
        if values.get(key) not in ({}, None) and values[key] is not False:
            raise InputError(f"{where}: {key} is not for a comparison; use {instead}")
    tables = values.get("methods")
    if not isinstance(tables, Mapping) or not tables:
        raise InputError(f"{where} has no methods; write a table [methods.npo] for each")
    own = {k: v for k, v in values.items() if k in OWN_FIELDS}
    shared = {k: v for k, v in values.items() if k not in OWN_FIELDS and k not in UNSUPPORTED and k != "methods"}
    methods = {label: _entry(label, table, where) for label, table in tables.items()}
    made = checked(Compare, own | {"methods": methods, "shared": shared}, where)
    if len(set(made.seeds)) < len(made.seeds):
        raise InputError(f"{where}: a seed stands twice in seeds = {made.seeds}")
    counts = {label: len(_choices(e)) for label, e in made.methods.items()}
    if len(set(counts.values())) > 1 and not made.unequal_trials:
        told = ", ".join(f"{label} {n}" for label, n in counts.items())
        raise InputError(
            f"{where}: the methods have unequal numbers of trials ({told}); give every grid as many values, or allow it "
            "with unequal_trials = true"
        )
    trials(made, where)
    return made


def trials(settings: Compare, where: str = "the comparison") -> list[Trial]:
    """Every run of a comparison, seed by seed, so that an interrupted one has whole rounds of all methods."""
    folder = Path(settings.out) / RUNS
    found = [
        _trial(settings, label, choice, seed, folder, where)
        for seed in settings.seeds
        for label, it in settings.methods.items()
        for choice in _choices(it)
    ]
    for at, one in enumerate(found):
        if one.name in (other.name for other in found[:at]):
            raise InputError(f"{where}: two runs would be called {one.name}; a grid's value stands twice")
    return found


def _set(tables: Mapping[str, Any], key: str, value: str) -> dict[str, Any]:
    """``tables`` with ``NAME.KEY`` or ``NAME.training.KEY`` set."""
    label = max((t for t in tables if key.startswith(f"{t}.")), key=len, default=None)
    if label is None or not isinstance(tables[label], Mapping):
        first = key.split(".")[0]
        raise InputError(f"methods.{key}: there is no table [methods.{first}]{nearest(first, tables)}")
    table, name = dict(tables[label]), key.removeprefix(f"{label}.")
    if name.startswith("training."):
        key = name.removeprefix("training.")
        of_file = full_names(table.get("training", {}), f"[methods.{label}.training]")
        table["training"] = of_file | {ALIASES.get(key, key): value}
    else:
        table[name] = value
    return {**tables, label: table}


def _entry(label: str, table: Any, where: str) -> Entry:
    """The table ``[methods.label]``: keys that are not an entry's own are the method's parameters."""
    if not NAME.fullmatch(label):
        raise InputError(f"{where}: [methods.{label}] is no name for a folder; use letters, digits and _ . + -")
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: methods.{label} is no table; write [methods.{label}] and its parameters under it")
    own = {k: v for k, v in table.items() if k in ("method", "training", "grid")}
    parameters = {k: v for k, v in table.items() if k not in own}
    for key in ("training", "grid"):
        if isinstance(own.get(key), Mapping):
            own[key] = full_names(own[key], f"{where}, [methods.{label}.{key}]")
    made = checked(Entry, {"method": label, **own, "parameters": parameters}, f"{where}, [methods.{label}]")
    known = entry(made.method).defaults
    for key in made.grid:
        if key not in known and key not in training_names():
            raise InputError(
                f"{where}: the grid of {label} names {key!r}{nearest(key, [*known, *training_names()])}; a grid is over "
                f"parameters of {made.method} or training arguments"
            )
        if key in BUDGET_ARGUMENTS:
            raise InputError(f"{where}: the grid of {label} changes {key}; every run has the same budget")
        if key in made.parameters or key in made.training:
            raise InputError(f"{where}: {key} stands in [methods.{label}] and in its grid; leave out one of the two")
    return made


def _choices(it: Entry) -> list[dict[str, Any]]:
    return [dict(zip(it.grid, values, strict=True)) for values in itertools.product(*it.grid.values())]


def _trial(settings: Compare, label: str, choice: dict[str, Any], seed: int, folder: Path, where: str) -> Trial:
    it, shared = settings.methods[label], settings.shared
    known = entry(it.method).defaults
    of_method = {k: v for k, v in choice.items() if k in known}
    of_training = {k: v for k, v in choice.items() if k not in known}
    parts = [label, *(re.sub(r"[^A-Za-z0-9_.+=-]", "_", f"{k}={v}") for k, v in choice.items()), f"seed{seed}"]
    values = shared | {
        "method": it.method,
        "parameters": it.parameters | of_method,
        "training": shared.get("training", {}) | it.training | of_training,
        "seed": seed,
        "out": str(folder / "-".join(parts)),
        "overwrite": True,  # what stands there is checked by `run`
    }
    values = recipe.without_level(values)
    return Trial("-".join(parts), label, choice, seed, bench.make(values, f"{where}, [methods.{label}]"))
