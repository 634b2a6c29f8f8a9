"""A run as a value: what the command line, a TOML file and ``unlearn`` all come down to."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from expunge.errors import InputError, nearest

Made = TypeVar("Made", bound=BaseModel)

# The table that key=value names -> the field of a recipe.
TABLES = {"method": "parameters", "optimizer": "optimizer_parameters", "lora": "lora", "training": "training"}


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise PydanticCustomError("regex", "it is not a regular expression, {said}", {"said": str(error)}) from None
    return text


class Adapter(BaseModel):
    """LoRA's own settings."""

    model_config = ConfigDict(extra="forbid")
    r: int = Field(16, gt=0)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class Recipe(BaseModel):
    """Everything that decides a run.

    ``forget`` and ``retain``: a file, a folder, a hub name (or rows in memory, from Python).  ``eval_rows``: how many rows
    of each set the figures before and after are measured on (evenly spaced).  ``examples``: how many rows of each set are
    answered and *shown* in record and report; 0 keeps all text out of them.  ``compare_with``: a third model,
    such as the retrained one, for the same figures; ``compare_name`` is what the report calls it.  ``model_name`` and
    ``data_name`` (the folder of the data files) stand in the record in place of where they lie here.
    ``holdout``: text that the model never saw; training stops once the forget loss is down to what it is there.
    ``trainable``: a regular expression; only weights whose name it is found in train, or with LoRA get factors (a method of
    activations brings its own).
    ``optimizer``: ``sophia``, ``sophia_published``, or ``adamw`` for the one that the training argument ``optim`` names;
    without one it is the method's.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    model: str
    forget: Any
    retain: Any = None
    holdout: Any = None
    out: str = "unlearned"
    method: str = "pdu"
    parameters: dict[str, Any] = {}
    optimizer: str | None = None
    optimizer_parameters: dict[str, Any] = {}
    adapter: Literal["lora"] | None = None
    lora: Adapter = Adapter()  # type: ignore[call-arg]
    merge: bool = False
    trainable: Annotated[str, AfterValidator(_expression)] | None = None
    training: dict[str, Any] = {}
    seed: int = Field(0, ge=0)
    max_length: int = Field(512, gt=1)
    chat_template: bool = True
    eval_rows: int = Field(100, ge=1)
    examples: int = Field(0, ge=0)
    max_new_tokens: int = Field(80, ge=1)
    compare_with: str | None = None
    compare_name: str | None = None
    model_name: str | None = None
    data_name: str | None = None
    title: str | None = None
    device: str | None = None
    overwrite: bool = False
    trust_remote_code: bool = False

    @property
    def names(self) -> dict[str, str]:
        """Path -> what the record calls it."""
        out = {self.model: self.model_name} if self.model_name else {}
        for place in (self.forget, self.retain, self.holdout):
            if self.data_name and isinstance(place, str | Path) and Path(place).exists():
                out[str(place)] = f"{self.data_name}/{Path(place).name}"
        return out


def make(values: Mapping[str, Any], where: str = "the run") -> Recipe:
    """``values`` checked; the first thing that is wrong is one sentence."""
    for key in values:
        if key not in Recipe.model_fields:
            from expunge.training.arguments import names

            raise InputError(f"{where}: there is no setting {key!r}{nearest(key, [*Recipe.model_fields, *names()])}")
    return checked(Recipe, values, where)


def checked(kind: type[Made], values: Mapping[str, Any], where: str) -> Made:
    """``kind`` made of ``values``; the first thing that does not fit is one sentence."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        if first["type"] == "missing":
            raise InputError(f"{where}: {name} is missing; give --{name} or put it in the recipe") from None
        raise InputError(f"{where}: {name} = {first['input']!r} does not fit: {first['msg']}") from None


def read(path: str | Path) -> dict[str, Any]:
    """The settings of a TOML recipe.

    Top-level keys are :class:`Recipe`'s; the table ``[method]`` holds ``name`` and the method's parameters, ``[optimizer]``
    the optimizer's likewise (its ``name`` may be left to the method), ``[lora]`` LoRA's settings, ``[training]`` fields of
    ``TrainingArguments``.  Relative data paths are relative to the recipe.
    """
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no recipe {file}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not TOML: {error}") from None
    if isinstance(values.get("method"), dict):
        table = dict(values.pop("method"))
        if "name" not in table:
            raise InputError(f"{file}: the table [method] needs a name")
        values["method"] = table.pop("name")
        values["parameters"] = table
    if isinstance(values.get("optimizer"), dict):
        table = dict(values.pop("optimizer"))
        values |= {"optimizer": table.pop("name", None), "optimizer_parameters": table}
    for key in ("model", "forget", "retain", "holdout", "compare_with", "data", "retrained"):
        beside = file.parent / str(values.get(key, ""))
        if key in values and not Path(str(values[key])).is_absolute() and beside.exists():
            values[key] = str(beside)
    return values


def override(values: dict[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``values`` with ``key=value`` settings: recipe keys, ``method.KEY`` (``optimizer``, ``lora``), training arguments."""
    from expunge.training.arguments import names

    out = {**values, **{table: dict(values.get(table, {})) for table in TABLES.values()}}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise InputError(f"{pair!r} is no setting; write key=value, such as learning_rate=1e-4")
        table, dot, name = key.partition(".")
        if dot and table in TABLES:
            out[TABLES[table]][name] = value
        elif key in Recipe.model_fields and key not in TABLES.values():
            out[key] = value
        elif key in names():
            out["training"][key] = value
        else:
            known = [*Recipe.model_fields, *names()]
            raise InputError(
                f"there is no setting {key!r}{nearest(key, known)}; "
                "a setting is a recipe key, method.KEY, optimizer.KEY, lora.KEY or a field of transformers.TrainingArguments"
            )
    return out
