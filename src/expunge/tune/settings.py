"""What decides a tuning, as a value: the methods, what is searched, how often, and by which figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from expunge import bench, hub, plugins
from expunge.bench.settings import EVALUATION_OPTIONS, Bench
from expunge.compare.settings import FIGURES, NAME
from expunge.errors import InputError
from expunge.jobs import Address, Count, Jobs
from expunge.method import Entry, entry
from expunge.settings import check_pairs, checked, extract_settings, mapping, recipe_first, split_pair
from expunge.training.arguments import parse
from expunge.tune import space
from expunge.tune.objective import Axes
from expunge.unlearning import settings as recipe
from expunge.unlearning.settings import Recipe

TRIALS = "trials"
ROWS_AXES = ("forget/probability", "retain/probability")
OF_BENCHMARK = ("data", "retrained", "retrained_name")  # of a benchmark's tuning alone
OF_ROWS = ("forget", "retain", "compare_with", "compare_name", "title", "keep_rows")  # and of one on the user's rows
UNSUPPORTED = {
    "teach": "`expunge bench --teach`, whose OUT/target is then the model",
    "teach_retrained": "`expunge bench --teach-retrained`, whose OUT/retrained is then the retrained model",
    "processes": "--jobs N, trials at once; a trial is one process",
}
Listed = BeforeValidator(lambda value: value.strip("[] ").split(",") if isinstance(value, str) else value)
Searched = BeforeValidator(lambda value: _searched(value))


class Tune(BaseModel):
    """Everything that decides a tuning.

    ``methods``: NAME -> the parameters that it keeps; ``trials``: of each method; ``search``: KEY or NAME.KEY -> the range
    as it is written (:mod:`expunge.tune.space`).  ``objective``: what is maximised (:mod:`expunge.tune.objective`);
    ``forget_figure``, ``utility_figure``, ``forget_better``: the figures that it is made of.  ``prune``: what ends a trial
    early.  ``keep_models``: every trial's weights stay.  ``benchmark``: its rows are forgotten and its questions asked, else
    the user's rows.  ``jobs``, ``cluster``: how many trials at once, and where (:mod:`expunge.jobs`).
    ``shared``: what every trial takes, as ``expunge run`` or ``expunge bench`` does.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    trials: int = Field(20, ge=1, le=100_000, description="Trials of each method.")
    search: Annotated[dict[str, str], Searched] = Field(
        {},
        description="What is searched: lr=1e-5:1e-3:log, gamma=0.1,1,10, METHOD.KEY=…, or one value, which stays; "
        "if not given, the numbers of the method's signature, the learning rate and the steps.",
        json_schema_extra={"metavar": "KEY=RANGE", "repeated": True},
    )
    objective: str | None = Field(
        None,
        description="What is maximised: a figure (part/name), or FILE.py:NAME, a function of a trial's record; if not "
        "given, the harmonic mean of forgetting to the reference model's level and of utility.",
        json_schema_extra={"metavar": "FIGURE"},
    )
    forget_figure: str | None = Field(None, description="The forget figure, as part/name.")
    utility_figure: str | None = Field(None, description="The utility figure, as part/name.")
    forget_better: Literal["lower", "higher"] = "lower"
    prune: Literal["median", "none"] = Field(
        "median",
        description="End a trial early that is worse at a step than the median of its method's trials there, or none.",
        json_schema_extra={"metavar": "median|none"},
    )
    prune_every: int | None = Field(
        None,
        ge=1,
        description="Steps between two looks at a trial; if not given, there are 8 in a budget.",
        json_schema_extra={"metavar": "STEPS"},
    )
    keep_models: bool = Field(False, description="Every trial's weights stay on disk.")
    benchmark: str | None = Field(
        None, description="Forget and measure what a benchmark says, such as tofu/forget10, in place of your rows."
    )
    out: str = Field("tuned", description="Folder for tune.json, report.html, the best recipes and all trials.")
    overwrite: bool = Field(False, description="Begin anew where a tuning with other settings is in the folder.")
    jobs: Count = None
    cluster: Address = None
    shared: dict[str, Any] = Field(default_factory=dict)

    @property
    def axes(self) -> Axes:
        """The figures that the trade-off is of."""
        first = str(self.benchmark).split("/")[0]
        usual = FIGURES.get(first, (None, None)) if self.benchmark else ROWS_AXES
        utility = self.utility_figure or usual[1]
        if not self.benchmark and self.shared.get("retain") is None and self.utility_figure is None:
            utility = None
        return Axes(self.forget_figure or usual[0] or "", utility, self.forget_better)

    @property
    def spread(self) -> Jobs:
        """How many trials at once, and where."""
        return Jobs(self.jobs, self.cluster)

    @property
    def entries(self) -> dict[str, Entry]:
        """NAME -> the row of the method."""
        return {label: entry(label) for label in self.methods}


OWN_FIELDS = set(Tune.model_fields) - {"methods", "shared"}


def read(path: str | Path) -> dict[str, Any]:
    """The settings of a recipe as ``expunge run`` or, with a ``benchmark``, ``expunge bench`` takes it.

    Its method, or each table ``[methods.NAME]``, is tuned; the parameters that stand there stay as they are.
    """
    values = recipe.read(path)
    beside = Path(path).parent / str(values.get("benchmark") or "")
    if beside.suffix == ".py" and beside.is_file():
        values["benchmark"] = str(beside)
    return values


def from_words(
    words: Iterable[str] | None, given: Mapping[str, Any], methods: Iterable[str]
) -> tuple[dict[str, Any], str]:
    """The values of a command line, and where they come from: a recipe, options over it, ``key=value`` over both.

    ``methods``: those of the command line, in place of the recipe's.
    """
    values, pairs, where = recipe_first(words, read, "the tuning")
    if methods := list(methods):
        own = _tables(values, where) if values.get("method") or values.get("methods") else {}
        values = {k: v for k, v in values.items() if k not in ("method", "parameters")}
        values["methods"] = {name: own.get(name, {}) for name in methods}
    return override({**values, **given}, pairs), where


def override(values: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``values`` with ``key=value`` settings: ``search.KEY``, a field of :class:`Tune`, or what a trial takes."""
    pairs = list(pairs)
    check_pairs(pairs)
    searched = [split_pair(p.removeprefix("search.")) for p in pairs if p.startswith("search.") and "=" in p]
    out, rest = extract_settings(
        values, [p for p in pairs if not p.startswith("search.")], OWN_FIELDS | {"data", "retrained"}
    )
    if searched:
        out["search"] = {**_searched(out.get("search") or {}), **dict(searched)}
    return bench.override(out, rest) if out.get("benchmark") else recipe.override(out, rest, others=OWN_FIELDS)


def make(values: Mapping[str, Any], where: str = "the tuning") -> Tune:
    """``values`` checked as far as that goes without data; the first thing that is wrong is one sentence."""
    values = recipe.with_training(values, where)
    tables = _tables(values, where)
    hub.refuse(values, where)
    for key, instead in UNSUPPORTED.items():
        if values.get(key) not in ({}, None, 1) and values[key] is not False:
            raise InputError(f"{where}: {key} is not for a tuning; use {instead}")
    if values.get("as_published"):
        raise InputError(
            f"{where}: as_published is not for a tuning; name the paper's method (blur_npo for blur_level)"
        )
    benchmark = bool(values.get("benchmark"))
    for key in OF_ROWS if benchmark else OF_BENCHMARK:
        if values.get(key) is not None:
            instead = "with a benchmark its own rows are used, and --retrained names the retrained model"
            other = (
                "that is of a benchmark (--benchmark NAME); of your own rows --compare-with names the retrained model"
            )
            raise InputError(f"{where}: {key} is not for this tuning: {instead if benchmark else other}")
    own = {k: v for k, v in values.items() if k in OWN_FIELDS}
    dropped = {"method", "methods", "parameters", *UNSUPPORTED}
    shared = {k: v for k, v in values.items() if k not in OWN_FIELDS and k not in dropped}
    if isinstance(shared.get("training"), Mapping):
        shared["training"] = {
            k: parse(k, v) for k, v in shared["training"].items()
        }  # texts of a command line as numbers
    made = checked(Tune, own | {"methods": tables, "shared": shared}, where)
    space.split(made.search, made.entries)
    if made.objective is not None and plugins.is_file(made.objective):
        plugins.of_file("objective", made.objective)
    for label in made.methods:
        trial(made, label, {}, "-")
    if not benchmark and not all(isinstance(shared.get(k), str | Path | None) for k in ("forget", "retain")):
        raise InputError(f"{where}: forget and retain are files or names here, for the best recipe names them")
    return made


def trial(settings: Tune, label: str, choice: Mapping[str, Any], out: str) -> Recipe | Bench:
    """The run of one trial: ``choice`` sets parameters of the method and training arguments."""
    row, shared = entry(label), settings.shared
    values = shared | {
        "method": label,
        "parameters": settings.methods[label] | {k: v for k, v in choice.items() if k in row.defaults},
        "training": shared.get("training", {}) | {k: v for k, v in choice.items() if k not in row.defaults},
        "out": out,
        "overwrite": True,  # the trial's folder is checked with the whole
    }
    row.make(**values["parameters"])
    values = recipe.without_level(values)
    if not settings.benchmark and shared.get("retain") is None:
        values.setdefault("self_retain", 0)  # no trial writes rows of its own unless that is asked for
    where = f"the method {label}"
    if settings.benchmark:
        return bench.make(values | {"benchmark": settings.benchmark}, where)
    return recipe.make(values, where)


def how_of(settings: Tune) -> dict[str, Any]:
    """How the models of a benchmark's tuning are asked, as far as the user says."""
    return {k: v for k, v in settings.shared.items() if k in EVALUATION_OPTIONS}


def _tables(values: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """NAME -> its parameters, of ``methods`` or of the one ``method``."""
    tables = values.get("methods")
    if tables is None:
        name = values.get("method")
        tables = {str(name): values.get("parameters") or {}} if name else {}
    elif values.get("method"):
        raise InputError(f"{where}: method and methods are both there; leave out one of the two")
    elif isinstance(tables, list | tuple):
        tables = {str(name): {} for name in tables}
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise InputError(f"{where}: methods is no table; write [methods.NAME] and the parameters that stay under it")
    if not tables:
        raise InputError(f"{where}: no method is named; give --method NAME, several times for several")
    return {name: dict(table) for name, table in tables.items()}


def folder_name(label: str, number: int | None = None) -> str:
    """The name of a method's files, and of its trial ``number``.

    >>> folder_name("pdu", 3), folder_name("mine.py:loss")
    ('pdu-0003', 'loss')
    """
    stem = label.rpartition(":")[2] if not NAME.fullmatch(label) else label
    return stem if number is None else f"{stem}-{number:04d}"


def _searched(value: Any) -> Any:
    """``KEY=RANGE`` texts, or a table of texts, lists and numbers, as KEY -> text."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        return dict(split_pair(text, "lr=1e-5:1e-3:log") for text in value)
    if not isinstance(value, Mapping):
        return mapping(value)
    flat = {f"{k}.{inner}": v for k, of in value.items() if isinstance(of, Mapping) for inner, v in of.items()}
    flat |= {k: v for k, v in value.items() if not isinstance(v, Mapping)}
    return {k: ",".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in flat.items()}
