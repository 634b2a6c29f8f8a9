"""What the record of an audit calls models and files, in place of where they lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge import record
from expunge.audit.control import Control
from expunge.audit.settings import Audit

SETS = ("forget", "retain", "holdout")


def model_names(settings: Audit, control: Control | None) -> dict[str, str]:
    """Role -> what the record calls the model: its path or hub name, or where ``settings`` name models, that."""
    places = {"target": settings.target or "", "unlearned": settings.model} | (
        {"control": control.name} if control else {}
    )
    name = settings.model_name
    if not name:
        return places
    own = {
        "unlearned": name,
        "target": settings.target_name or f"{name}, before unlearning",
        "control": settings.control_name or f"{name}, {control.kind if control else 'control'}",
    }
    return {role: own[role] for role in places}


def data_name(settings: Audit, name: str, source: str) -> str:
    """What the record calls the set ``name`` that was read from ``source``: of named models the file alone."""
    if not settings.model_name:
        return source
    file = os.path.basename(os.path.normpath(source))
    return f"{settings.data_name}/{file}" if settings.data_name else file


def names(settings: Audit, control: Control | None) -> dict[str, str]:
    """Path -> what the record calls it; empty where ``settings`` name no model, which leaves paths as they are."""
    if not settings.model_name:
        return {}
    models = model_names(settings, control)
    out = {settings.model: models["unlearned"], str(settings.target): models["target"]}
    if control:
        out[control.name] = models["control"]
    for name in SETS:
        source = getattr(settings, name)
        if isinstance(source, str | Path):
            out[str(source)] = data_name(settings, name, str(source))
    for place in (settings.out, settings.policy, settings.run):
        if place:
            out[place] = os.path.basename(os.path.normpath(place))
    return out


PLACES = ("source", "folder", "policy")  # keys of the record under which a path stands alone


def without_paths(log: Mapping[str, Any], of: Mapping[str, str]) -> dict[str, Any]:
    """``log`` with ``of`` in place of the paths, its command fit to be published; as it is where ``of`` is empty.

    A path is replaced where one is said (:data:`PLACES`), and one with a folder in it within any text.
    """
    if not of:
        return dict(log)
    found = {form: name for path, name in of.items() for form in forms(path)}
    longest_first = dict(sorted(found.items(), key=lambda pair: -len(pair[0])))
    out: dict[str, Any] = _renamed(dict(log), longest_first)
    return out | {"command": record.renamed(log.get("command"), found)}


def forms(path: str) -> set[str]:
    """The texts by which a path may be named: as it was given, in full, and with its links followed."""
    given = os.path.expanduser(path)
    return {path, given} | ({os.path.abspath(given), os.path.realpath(given)} if os.path.exists(given) else set())


def _renamed(value: Any, names: Mapping[str, str], key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {k: _renamed(of, names, k) for k, of in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(of, names) for of in value]
    if not isinstance(value, str):
        return value
    if key in PLACES and value in names:
        return names[value]
    for path, name in names.items():
        if os.sep in path:
            value = value.replace(path, name)
    return value
