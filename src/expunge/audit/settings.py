"""The settings of an audit, as one value; what a finished run says of itself need not be said again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from expunge import files, record
from expunge.errors import InputError, nearest
from expunge.settings import DTYPES, checked, extract_settings, mapping, read_recipe, scalars
from expunge.unlearning import readers

Verdict = Literal["forgotten", "partly"]
GROUPS = ("none", "quick", "all")
OF_RUN = ("chat_template", "template_arguments", "columns", "assistant_turns", "max_length")  # how rows are read


class Audit(BaseModel):
    """Everything that decides an audit.

    ``model``: the unlearned model, or the folder of a finished ``expunge run``, which then gives target, rows, how they are
    read, and as ``base`` the model that gave its level, where these are left out.  ``retrained``: a model that never saw the
    forget rows; without one the control is ``base``, the model that the target was fine-tuned from (of an adapter its
    base).  ``rows``: of each set, evenly spread;
    ``known``: the share of the forget rows that the attacker is given and that are not measured.  ``attacks``: ``none``,
    ``quick`` (those that train nothing), ``all``, or names with commas.  ``rewrite``: let the target write paraphrased
    questions and wrong answers for rows that bring none.  ``examples``: that many of the best-known rows are *shown*.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    model: str = Field(description="The unlearned model, or the folder of a finished `expunge run`.")
    target: str | None = Field(None, description="The model before unlearning; of a finished run, the one it names.")
    forget: Annotated[Any, AfterValidator(readers.rows)] = Field(
        None, description="Rows that were to be forgotten; of a finished run, the ones it names."
    )
    retain: Annotated[Any, AfterValidator(readers.rows)] = Field(
        None,
        description="Rows that were to be kept, best ones not trained on; of a finished run, the ones it names.",
    )
    holdout: Annotated[Any, AfterValidator(readers.rows)] = Field(
        None, description="Rows of the same kind that no model saw, for membership inference."
    )
    retrained: str | None = Field(
        None, description="A model that never saw the forget rows: the control.", json_schema_extra={"metavar": "MODEL"}
    )
    base: str | None = Field(
        None,
        description="The model that the target was fine-tuned from: the control without a retrained one; of a finished run "
        "the model that gave its level, of an adapter its base.",
        json_schema_extra={"metavar": "MODEL"},
    )
    out: str = Field("audit", description="Folder for audit.json, report.html, summary.md, junit.xml and evidence/.")
    rows: int = Field(32, ge=2, description="Rows of each set that are measured, evenly spread.")
    known: float = Field(
        0.25,
        ge=0,
        le=0.9,
        description="Share of the forget rows that attacks may learn from; they are not measured.",
        json_schema_extra={"metavar": "SHARE"},
    )
    attacks: str = Field(
        "quick",
        description="none, quick (those that train nothing), all, or names with commas.",
        json_schema_extra={"metavar": "NAMES"},
    )
    rewrite: bool = Field(
        True, description="Let the target write paraphrased questions and wrong answers where rows bring none."
    )
    wrong: int = Field(5, ge=1, description="Wrong answers of a row that are compared with the right one, at most.")
    general: bool = Field(True, description="Ask two dozen general questions, besides the rows to keep.")
    max_new_tokens: int = Field(48, ge=1, description="Tokens of an answer.")
    gradient: bool = Field(
        False, description="With holdout rows: membership by gradient norm too (a backward pass a row)."
    )
    policy: str | None = Field(None, description="Thresholds of the verdict, a TOML file; a built-in one if not given.")
    fail_unless: Verdict | None = Field(
        None, description="Exit with 1 unless the verdict is forgotten (or, with partly, at least that)."
    )
    examples: int = Field(
        0, ge=0, description="Rows that are still known best, to SHOW with their answers; 0 shows no text."
    )
    request: str | None = Field(None, description="Id of the erasure request, for the page.")
    operator: str | None = Field(None, description="Who carries the audit out, for the page.")
    title: str | None = Field(None, description="Title of the page.")
    model_name: str | None = Field(
        None, description="What record, pages and certificate call the unlearned model; then they name no path at all."
    )
    target_name: str | None = Field(None, description="What they call the target; with model_name.")
    control_name: str | None = Field(None, description="What they call the control; with model_name.")
    data_name: str | None = Field(None, description="What they call the folder of the data files; with model_name.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of resampling, sampling and attacks.")
    seeds: int = Field(
        1, ge=1, description="Seeds of attacks that are random: figures are means over them, beside each seed's."
    )
    limit: int | None = Field(None, ge=1, description="Only the first rows of each set.")
    max_length: int = Field(512, gt=1, description="Tokens of a row at most.")
    chat_template: bool = Field(True, description="Ask in the tokenizer's chat template, or as plain text.")
    template_arguments: Annotated[dict[str, Any], BeforeValidator(scalars)] = Field(
        {},
        description="Arguments of the chat template, such as enable_thinking=false.",
        json_schema_extra={"metavar": "NAME=VALUE,…", "repeated": True},
    )
    columns: Annotated[dict[str, str], BeforeValidator(mapping)] = Field(
        {},
        description="Which column is what, such as question=Frage,answer=Antwort.",
        json_schema_extra={"metavar": "PART=COLUMN,…", "repeated": True},
    )
    assistant_turns: Literal["all", "last"] = "last"
    device: str | None = Field(None, description="Where the models run, such as cuda.")
    dtype: str = Field("float32", description="Number format of the weights: float32, bfloat16 or float16.")
    trust_remote_code: bool = Field(False, description="Run code that a model's repository brings.")
    overwrite: bool = Field(False, description="Write over an earlier audit in the folder.")
    run: str | None = None  # the folder of the run that wrote the model

    @property
    def attack_names(self) -> list[str]:
        """The names in ``attacks``."""
        return [name.strip() for name in self.attacks.split(",") if name.strip()]


def make(values: Mapping[str, Any], where: str = "the audit") -> Audit:
    """``values`` checked, completed by the record of the run that wrote the model; InputError for the first wrong one."""
    given = {key: value for key, value in values.items() if value is not None}
    chosen = checked(Audit, completed(given), where)
    if chosen.target is None or chosen.forget is None:
        lacking = "target" if chosen.target is None else "forget"
        raise InputError(
            f"{where}: {lacking} is missing; give --{lacking}, or as --model the folder of a finished `expunge run`, whose "
            "record names it"
        )
    if chosen.dtype not in DTYPES:
        raise InputError(f"{where}: dtype must be {', '.join(DTYPES)}, not {chosen.dtype!r}")
    for name in ("target_name", "control_name", "data_name"):
        if getattr(chosen, name) and not chosen.model_name:
            raise InputError(
                f"{where}: {name} does nothing without model_name; say what the record calls the model too"
            )
    if not chosen.attack_names:
        raise InputError(f"{where}: attacks is empty; say none, quick, all, or names with commas")
    return chosen


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with what the record of the run in or around the folder ``model`` says, where they say nothing."""
    out = dict(values)
    folder = run_folder(out.get("model"))
    if folder is None:
        return out
    said = record.read(folder)
    data, output = said.get("data") or {}, said.get("output") or {}
    if files.expanded(out["model"]).resolve() == folder.resolve():
        out["model"] = str(folder / str(output.get("path") or "model"))
    out["run"] = str(folder)
    source = (said.get("model") or {}).get("source")
    found: dict[str, Any] = {"target": source if source and _is_there(source) else None}
    for name in ("forget", "retain", "holdout"):
        place = (data.get(name) or {}).get("source")
        found[name] = place if place and Path(place).expanduser().exists() else None
    reading = said.get("reading") or {}
    found |= {key: reading.get(key) for key in ("columns", "max_length")}
    level = (said.get("level") or {}).get("model")
    if level and not out.get("retrained") and _is_there(level):
        found["base"] = level
    if "template" in reading and reading["template"] is None:
        found["chat_template"] = False
    for key, value in found.items():
        if value is not None and out.get(key) is None:
            out[key] = value
    return out


def run_folder(model: Any) -> Path | None:
    """The folder of the run whose record describes ``model``, its output folder or the weights in it; None without one."""
    if not isinstance(model, str) or not model.strip():
        return None
    try:
        place = files.expanded(model)
        around = place.parent if place.parent != place else place.resolve().parent
        for folder in (place, around):
            if (folder / record.FILE).is_file() and place.is_dir():
                path = (record.read(folder).get("output") or {}).get("path")
                if folder == place or path == place.resolve().name:
                    return folder
    except (OSError, ValueError):
        return None
    return None


def read(path: str | Path) -> dict[str, Any]:
    """The settings of a recipe for an audit, a TOML or YAML file with the fields of :class:`Audit`."""
    return read_recipe(path)


def override(values: Mapping[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``values`` with ``key=value`` settings; InputError for one that there is not."""
    fields = set(Audit.model_fields) - {"run"}
    out, rest = extract_settings(values, pairs, fields)
    for pair in rest:
        key = pair.partition("=")[0]
        raise InputError(
            f"there is no setting {key!r} of an audit{nearest(key, fields)}; write key=value, such as rows=20"
        )
    return out


def _is_there(source: str) -> bool:
    """Whether a record's name of a model can be one that is loaded: a path that is there, or no path."""
    return files.expanded(source).exists() or not (source.startswith((".", "/", "~")) or source.count("/") > 1)
