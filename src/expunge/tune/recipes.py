"""The best trial of a method as a recipe that ``expunge run``, or ``expunge bench`` for a benchmark, takes as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge import plugins
from expunge.files import strict
from expunge.method import entry
from expunge.settings import PATHS
from expunge.tune.settings import Tune, folder_name

TABLES = ("method", "optimizer", "lora", "training", "columns", "template_arguments")  # come after the plain keys


def recipe(settings: Tune, label: str, choice: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a trial: paths that are on this disk in full, so that it can be run from any folder."""
    row = entry(label)
    shared = dict(settings.shared)
    own = settings.methods[label] | {k: v for k, v in choice.items() if k in row.defaults}
    training = shared.pop("training", {}) | {k: v for k, v in choice.items() if k not in row.defaults}
    optimizer, of_it = shared.pop("optimizer", None), shared.pop("optimizer_parameters", None)
    if not row.make(**own).reads_level:
        shared.pop("level", None)
    values: dict[str, Any] = {"benchmark": settings.benchmark} if settings.benchmark else {}
    values |= {k: _in_full(v) if k in PATHS else v for k, v in shared.items()}
    values["out"] = f"unlearned-{folder_name(label)}"
    values["method"] = {"name": _in_full(label) if plugins.is_file(label) else label, **own}
    if optimizer or of_it:
        values["optimizer"] = {**({"name": optimizer} if optimizer else {}), **(of_it or {})}
    return values | ({"training": training} if training else {})


def toml(values: Mapping[str, Any], comment: str = "") -> str:
    """``values`` as TOML: plain keys, then :data:`TABLES`; None and empty tables are left out.

    >>> print(toml({"model": "m", "merge": True, "training": {"learning_rate": 1e-05}}), end="")
    model = "m"
    merge = true
    <BLANKLINE>
    [training]
    learning_rate = 1e-05
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    tables = {k: v for k, v in values.items() if isinstance(v, Mapping) and v}
    lines += [f"{k} = {_text(v)}" for k, v in values.items() if v is not None and not isinstance(v, Mapping)]
    for name in sorted(tables, key=lambda k: TABLES.index(k) if k in TABLES else len(TABLES)):
        lines += ["", f"[{name}]"]
        lines += [f"{_key(k)} = {_text(v)}" for k, v in tables[name].items() if v is not None]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _text(value: Any) -> str:
    """A value as TOML writes it; JSON's texts and numbers are TOML's, too."""
    value = strict(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _in_full(value: Any) -> Any:
    """A path that exists as an absolute one; the name of a hub or of a method in a file likewise, else as it is."""
    if not isinstance(value, str | Path):
        return value
    text, name = str(value), ""
    if plugins.is_file(text) and ":" in text:
        text, _, name = text.rpartition(":")
    path = Path(text).expanduser()
    if not path.exists():
        return str(value)
    return f"{path.absolute()}{f':{name}' if name else ''}"
