"""Settings, as every command reads them: validation, ``key=value``, recipe files, short names.  Without torch."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from annotated_types import Ge
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from expunge import files
from expunge.errors import InputError, nearest, shortened

Model = TypeVar("Model", bound=BaseModel)

RECIPES = (".toml", ".yaml", ".yml")
PATHS = (
    "model",
    "forget",
    "retain",
    "holdout",
    "level",
    "compare_with",
    "data",
    "retrained",
    "utility",
)  # relative to a recipe
ALL_PATHS = (*PATHS, "out", "log", "prompts", "targets", "benchmark")  # `~` is the home folder in all
MAY_BE_INFINITE = ("max_perplexity",)  # no limit
LARGEST_RECIPE = 1 << 20  # bytes
# Other libraries' names of LoRA's settings -> ours.
HABITS = {
    "rank": "r", "lora_r": "r", "lora_rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout",
    "modules": "target_modules", "lora_target_modules": "target_modules",
}  # fmt: skip
# Short name -> field of transformers.TrainingArguments.
ALIASES = {"lr": "learning_rate", "epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}
DTYPES = ("float32", "bfloat16", "float16")


# -- values ---------------------------------------------------------------------------------------------------------------
def checked(schema: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """``schema(**values)``, with ``~`` in paths expanded; InputError for the first invalid value."""
    check_filled(values, where)
    check_text(values, where)
    try:
        settings = schema(**{key: expanded(value) if key in ALL_PATHS else value for key, value in values.items()})
        _check_finite(settings, where)
        return settings
    except ValidationError as error:
        problem = error.errors()[0]
    except RecursionError:
        raise InputError(f"{where}: a value is nested too deeply") from None
    name = ".".join(str(p) for p in problem["loc"])
    if problem["type"] == "missing":
        raise InputError(f"{where}: {name} is missing; give --{name} or put it in the recipe") from None
    if problem["type"] == "extra_forbidden":
        *parents, field_name = map(str, problem["loc"])
        accepted = [".".join([*parents, field]) for field in _fields_at(schema, parents)]
        suggestion = nearest(".".join([*parents, HABITS.get(field_name, field_name)]), accepted)
        listed = "" if suggestion else f"; there are {', '.join(accepted)}"
        raise InputError(f"{where}: there is no setting {name!r}{suggestion}{listed}") from None
    raise InputError(
        f"{where}: {name} = {shortened(problem['input'])} does not fit: {problem['msg'].removeprefix('Value error, ')}"
    ) from None


def _check_finite(settings: BaseModel, where: str) -> None:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, float) and name not in MAY_BE_INFINITE and not math.isfinite(value):
            raise InputError(f"{where}: {name} must be a finite number, not {value}")


def check_filled(values: Mapping[str, Any], where: str) -> None:
    """Raise InputError for the first text without a character: a name or a path that a shell variable left empty."""
    for key, value in values.items():
        texts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(text, str) and not text.strip() for text in texts):
            raise InputError(
                f"{where}: {key} is an empty text; give a value, or leave it out (an unset shell variable?)"
            )


def _fields_at(schema: type[BaseModel], parents: Iterable[str]) -> list[str]:
    """The names of the fields of the nested model at the path ``parents`` of ``schema``."""
    model: Any = schema
    for name in parents:
        model = model.model_fields[name].annotation if name in getattr(model, "model_fields", {}) else None
    return list(getattr(model, "model_fields", {}))


def expanded(value: Any) -> Any:
    """A path that begins with ``~`` in full; anything else as it is.

    >>> expanded("model"), expanded("~/model") == str(Path.home() / "model")
    ('model', True)
    """
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    return str(files.expanded(value))


def name_of(model: Any) -> str:
    """The name or the folder of a model as text; InputError for a model in memory, which only ``unlearn`` takes."""
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    raise InputError(
        f"model is a {type(model).__name__}, and this takes a name or a folder; save a model in memory with "
        "save_pretrained, its tokenizer too, and give the folder"
    )


def check_text(values: Mapping[str, Any], where: str) -> None:
    """Raise InputError for text that is not valid Unicode or holds NUL, and for a path that is too long."""
    for key, value in values.items():
        if not isinstance(value, str):
            continue
        if "\0" in value or not _is_unicode(value):
            raise InputError(f"{where}: {key} = {shortened(value)} holds a character that is no text")
        if key in ALL_PATHS and (len(value) > 4096 or any(len(part.encode()) > 255 for part in value.split("/"))):
            raise InputError(f"{where}: {key} = {shortened(value)} is longer than a path can be")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def check_keys(
    values: Iterable[str], known: Iterable[str], where: str, habit: Callable[[str], str] = lambda key: ""
) -> None:
    """Raise InputError for the first key not in ``known``, with the hint ``habit(key)``, or else the nearest known key."""
    names = list(known)
    for key in values:
        if key not in names:
            raise InputError(f"{where}: there is no setting {key!r}{habit(key) or nearest(key, names)}")


def described_fields(settings_class: type[Any]) -> dict[str, FieldInfo]:
    """Field name -> pydantic's ``FieldInfo``, of a model or of a dataclass whose fields are ``Annotated``."""
    if issubclass(settings_class, BaseModel):
        return dict(settings_class.model_fields)
    hints = get_type_hints(settings_class, include_extras=True)
    return {
        f.name: FieldInfo.from_annotation(hints[f.name])
        if f.default is dataclasses.MISSING
        else FieldInfo.from_annotated_attribute(hints[f.name], f.default)
        for f in dataclasses.fields(settings_class)
    }


def check_least(settings: Any) -> None:
    """Raise InputError for a field of a dataclass that is below its ``Field(ge=…)``, or an empty text."""
    check_filled(vars(settings), "the settings")
    for name, field in described_fields(type(settings)).items():
        for bound in field.metadata:
            value = getattr(settings, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name} must be a finite number, not {value}")
            if isinstance(bound, Ge) and value is not None and value < bound.ge:
                raise InputError(f"{name} must be at least {bound.ge}, not {value}")


def full_names(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with full names in place of :data:`ALIASES`; InputError if a setting occurs under both names.

    >>> full_names({"lr": 1e-4, "seed": 1}, "the run")
    {'learning_rate': 0.0001, 'seed': 1}
    """
    for short, name in ALIASES.items():
        if short in values and name in values:
            raise InputError(f"{where}: {short} and {name} are the same setting; give one of them")
    return {ALIASES.get(key, key): value for key, value in values.items()}


# -- key=value ------------------------------------------------------------------------------------------------------------
def recipe_first(
    words: Iterable[str] | None, read: Callable[[str], dict[str, Any]], where: str
) -> tuple[dict[str, Any], list[str], str]:
    """(values, pairs, where) of a command line's ``words``: a recipe to ``read``, unless the first is key=value, then pairs.

    >>> recipe_first(["r.toml", "lr=1"], lambda file: {"read": file}, "the run")
    ({'read': 'r.toml'}, ['lr=1'], 'r.toml')
    >>> recipe_first(["lr=1"], lambda file: {"read": file}, "the run")
    ({}, ['lr=1'], 'the run')
    """
    first, *rest = pairs = list(words or [""])
    if not words or "=" in first:
        return {}, pairs if words else [], where
    return read(first), rest, first


def split_pair(text: str, example: str = "learning_rate=1e-4") -> tuple[str, str]:
    """The key and the value of ``key=value``, the key under its full name.

    >>> split_pair("lr=1e-4"), split_pair("lora.r=8"), split_pair("scorer=words:a=b")
    (('learning_rate', '1e-4'), ('lora.r', '8'), ('scorer', 'words:a=b'))
    """
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise InputError(f"{text!r} is no setting; write key=value, such as {example}")
    return ALIASES.get(key, key), value


def check_pairs(pairs: Iterable[str]) -> None:
    """Raise InputError where ``key=value`` settings give one of :data:`ALIASES` and its full name at once."""
    full_names({pair.partition("=")[0]: "" for pair in pairs}, "the command line")


def extract_settings(
    values: Mapping[str, Any], pairs: Iterable[str], keys: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """``values`` updated by the ``key=value`` settings whose key is in ``keys``, and the remaining pairs."""
    out, remaining, accepted = dict(values), list[str](), set(keys)
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if sign and key in accepted:
            out[key] = value
        else:
            remaining.append(pair)
    return out, remaining


def mapping(value: Any) -> Any:
    """``name=value,name=value`` (or several of them, or a JSON object) as a dict of texts; any other value as it is.

    >>> mapping("question=Frage, kurz,answer=Antwort"), mapping("a=1 b=x=y")
    ({'question': 'Frage, kurz', 'answer': 'Antwort'}, {'a': '1', 'b': 'x=y'})
    """
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            raise PydanticCustomError("mapping", "it begins like a JSON object, and is none") from None
    prefix, *parts = re.split(r"(?:^|[,\s]\s*)([A-Za-z_]\w*)=", value.strip())
    if prefix or not parts:
        raise PydanticCustomError("mapping", "write NAME=VALUE,NAME=VALUE")
    return dict(zip(parts[::2], parts[1::2], strict=True))


def checked_mapping(value: Any) -> dict[str, str]:
    """:func:`mapping` of a command's own option; InputError for what is none."""
    try:
        return dict(mapping(value)) if value else {}
    except PydanticCustomError as error:
        raise InputError(f"{value if isinstance(value, str) else ', '.join(value)!r}: {error.message()}") from None


def scalars(value: Any) -> Any:
    """:func:`mapping`, its texts read as true, false, null or a number where they are one.

    >>> scalars("enable_thinking=false,date_string=26 Jul 2024,n=3")
    {'enable_thinking': False, 'date_string': '26 Jul 2024', 'n': 3}
    """
    if not isinstance(value, str | list):
        return value
    return {name: _scalar(text) for name, text in mapping(value).items()}


def _scalar(text: Any) -> Any:
    try:
        value = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except (TypeError, ValueError):
        return text
    return value if value is None or isinstance(value, bool | int | float) else text


# -- recipe files ---------------------------------------------------------------------------------------------------------
def is_recipe(text: str) -> bool:
    """Whether an argument of the command line names a recipe file.

    >>> is_recipe("r.toml"), is_recipe("r.yaml"), is_recipe("tofu/forget10")
    (True, True, False)
    """
    return text.endswith(RECIPES)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The settings of a TOML or YAML file; relative paths (:data:`PATHS`) that exist beside the file are resolved there.

    A file that ends in ``.yaml`` or ``.yml`` is YAML, any other TOML; the same keys and tables in both.
    """
    file = files.expanded(path)
    if file.is_dir():
        raise InputError(f"{file} is a folder; a recipe is a file that ends in {', '.join(RECIPES)}")
    language = "YAML" if file.suffix in (".yaml", ".yml") else "TOML"
    try:
        if file.exists() and (not file.is_file() or file.stat().st_size > LARGEST_RECIPE):
            raise InputError(f"{file} is no recipe: that is a text file of at most {LARGEST_RECIPE >> 20} MB")
        text = file.read_text(encoding="utf-8")
        values = _yaml(text, file) if language == "YAML" else tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"there is no recipe {file}{_similar(file)}") from None
    except OSError as error:
        raise InputError(f"the recipe {file} cannot be read: {(error.strerror or 'an error').lower()}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not {language}: it is not UTF-8 text") from None
    except RecursionError:
        raise InputError(f"{file} is not {language}: it is nested too deeply") from None
    except InputError:
        raise
    except ValueError as error:  # TOML's own, and a number of thousands of digits
        message = "a number in it has too many digits" if "set_int_max_str_digits" in str(error) else str(error)[:200]
        raise InputError(f"{file} is not {language}: {message}") from None
    if not values:
        raise InputError(f'{file} is empty; a recipe has settings such as model = "smollm2-135m"')
    return values | {key: _beside(values[key], file.parent) for key in PATHS if isinstance(values.get(key), str)}


def _similar(file: Path) -> str:
    """The end of a message about a missing ``file``: the recipe with the nearest name, or how settings are written."""
    folder = file.absolute().parent
    close = nearest(file.name, [f.name for f in folder.iterdir() if f.suffix in RECIPES]) if folder.is_dir() else ""
    return close or ("" if file.suffix in RECIPES else "; settings are written key=value, such as max_steps=20")


def _yaml(text: str, file: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML 1.1 reads 1e-4, without a point, as text; here it is the number that it is in TOML."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Reject aliases: a few lines of them can expand beyond all memory."""
            if self.check_event(yaml.AliasEvent):
                raise InputError(f"{file}: a YAML alias (*name) is not read; write the value out")
            return super().compose_node(parent, index)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    try:
        values = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{file} holds no settings; write key: value, such as model: smollm2-135m")
    return values


def _beside(value: str, folder: Path) -> str:
    try:
        path = folder / value
        return str(path) if not Path(value).is_absolute() and path.exists() else value
    except (OSError, ValueError):  # not a valid path; the path's own check reports it
        return value
