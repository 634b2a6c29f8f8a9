"""The files of a model's folder that go to the Hub: a list of names that are allowed, and no path of this machine in them.

Everything else of a run (record, reports, evidence, rows that it wrote) holds forget data or may, and is not read here.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.files import expanded, read_json
from expunge.hub.card import hub_name

ALLOWED = (
    "config.json", "generation_config.json", "adapter_config.json",
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "*.tiktoken", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
WITH_NAMES = (
    "config.json",
    "adapter_config.json",
    "tokenizer_config.json",
)  # that may name where a model was loaded from
SOURCES = ("base_model_name_or_path", "_name_or_path", "name_or_path")


def allowed(name: str) -> bool:
    """Whether a file of this name goes to the Hub.

    >>> allowed("model-00001-of-00002.safetensors"), allowed("alternates.json"), allowed("notes.txt")
    (True, False, False)
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in ALLOWED)


def chosen(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of a model's ``folder`` that go to the Hub, and the names of those that do not.

    Of Python files those that the configuration names (``auto_map``) go; links do not.
    """
    code = _code(folder)
    found = sorted(folder.iterdir())
    going = [p for p in found if p.is_file() and not p.is_symlink() and (allowed(p.name) or p.name in code)]
    if not any(p.suffix == ".safetensors" for p in going):
        raise InputError(f"{folder} holds no model that can be pushed: there are no safetensors; give a run's folder")
    return going, [p.name for p in found if p not in going]


def _code(folder: Path) -> set[str]:
    names: set[str] = set()
    for name in WITH_NAMES:
        if not (folder / name).is_file():
            continue
        for value in (
            read_json(folder / name, description="settings", remedy="restore it").get("auto_map") or {}
        ).values():
            parts = value if isinstance(value, list | tuple) else [value]
            names |= {f"{part.split('--')[-1].split('.')[0]}.py" for part in parts if isinstance(part, str)}
    return names


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter."""
    return (folder / "adapter_config.json").is_file()


def base_of(folder: Path, record: Mapping[str, Any], given: str | None = None) -> str | None:
    """The Hub's name of the model before: ``given``, an adapter's base, or the model of the record; None: it has none."""
    if given is not None:
        if hub_name(given) is None:
            raise InputError(f"base_model {given!r} is no name on the Hub; write it as user/name")
        return hub_name(given)
    named = (record.get("model") or {}).get("source")
    if is_adapter(folder):
        named = read_json(folder / "adapter_config.json", description="adapter's settings", remedy="restore it").get(
            "base_model_name_or_path"
        )
    return base_name(named)


def base_name(place: Any) -> str | None:
    """The Hub's name of a model: its own, or the one that the configuration in the folder ``place`` gives, as those of
    older transformers do.
    """
    if found := hub_name(place):
        return found
    config = expanded(str(place)) / "config.json" if place else None
    if config is None or not config.is_file():
        return None
    return hub_name(read_json(config, description="model's settings", remedy="restore it").get("_name_or_path"))


def content(file: Path, base: str | None) -> bytes | Path:
    """What goes to the Hub of ``file``: itself, or of settings a text without paths of this machine.

    An adapter names ``base``; raises InputError where that is None and it names a folder.
    """
    if file.name not in WITH_NAMES:
        return file
    values = read_json(file, description="settings", remedy="restore it")
    for key in SOURCES:
        if key in values and hub_name(values[key]) is None:
            del values[key]
    if file.name == "adapter_config.json":
        if base is None:
            raise InputError(
                f"{file.parent}: the adapter's base is a folder of this machine, which nobody else has; name it as it is on "
                "the Hub with --base-model user/name, or save whole weights with --merge and push those"
            )
        values["base_model_name_or_path"] = base
    return (json.dumps(_without_folders(values), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _without_folders(value: Any) -> Any:
    """Absolute paths that are on this disk as their last part."""
    if isinstance(value, dict):
        return {k: _without_folders(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return (
        os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) and os.path.exists(value) else value
    )
