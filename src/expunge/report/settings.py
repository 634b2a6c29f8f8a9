"""Record -> the settings of the run, as groups of named lines: method, model, data, training, software."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.report.format import count, look, number, plain, scale

STATUS = {
    "unreproduced": "unreproduced: no committed record shows the paper's numbers yet",
    "reproduced": "reproduced: a committed record shows the paper's numbers",
}


@dataclass(frozen=True)
class Setting:
    """One line of the settings; ``kind`` is text, code (monospaced) or link (``href`` says where to)."""

    name: str
    value: str
    kind: str = "text"
    href: str = ""


def settings(record: Any) -> list[tuple[str, list[Setting]]]:
    """The groups of settings in the order of the page; a group with nothing to say is left out."""
    groups = [
        ("Method", _method(record)),
        ("Model", _model(record)),
        ("Data", _data(record)),
        ("Training", _training(record)),
        ("Software", _software(record)),
    ]
    return [(name, lines) for name, lines in groups if lines]


def paper(name: Any) -> Setting | None:
    """The paper as a link where the name is an arXiv number, as text otherwise.

    >>> paper("arXiv:2506.08164").href
    'https://arxiv.org/abs/2506.08164'
    """
    if not name:
        return None
    found = re.fullmatch(r"arXiv:(\d{4}\.\d{4,5}(?:v\d+)?)", str(name), flags=re.IGNORECASE)
    if not found:
        return Setting("Paper", str(name))
    return Setting("Paper", str(name), "link", f"https://arxiv.org/abs/{found[1]}")


def _method(record: Any) -> list[Setting]:
    method = look(record, "method")
    objectives = look(method, "objectives")
    lines = given(method, name="Name", summary="What it does", combiner="How the objectives meet")
    if isinstance(objectives, Mapping):
        named = ", ".join(f"{name}: {plain(loss)}" for name, loss in objectives.items())
        lines.insert(min(len(lines), 2), Setting("Objectives", named))
    if isinstance(look(method, "parameters"), Mapping):
        lines += [Setting(str(key), plain(value), "code") for key, value in look(method, "parameters").items()]
    source = paper(look(method, "paper"))
    status = look(method, "status")
    return [
        *lines,
        *([source] if source else []),
        *([Setting("Status", STATUS.get(str(status), str(status)))] if status else []),
    ]


def _model(record: Any) -> list[Setting]:
    model, total = look(record, "model"), number(record, "model", "parameters")
    trained = number(record, "model", "trainable")
    lines = given(model, source="Source")
    lines += (
        [Setting("Source fingerprint", plain(look(model, "fingerprint")), "code")] if look(model, "fingerprint") else []
    )
    if total is not None:
        lines.append(Setting("Parameters", f"{scale(total)} ({count(total)})"))
    if trained is not None:
        share = f", {100 * trained / total:.1f} % of all" if total else ""
        lines.append(Setting("Trained parameters", f"{scale(trained)} ({count(trained)}){share}"))
    if look(model, "trains"):
        lines.append(Setting("Trained weights", plain(look(model, "trains")), "code"))
    lines += given(model, dtype="Number format", adapter="Adapter")
    if look(model, "adapter_config"):
        lines.append(Setting("Adapter settings", plain(look(model, "adapter_config")), "code"))
    lines += given(look(record, "output"), path="Written to")
    if look(record, "output", "fingerprint"):
        lines.append(Setting("Output fingerprint", plain(look(record, "output", "fingerprint")), "code"))
    return lines


def _data(record: Any) -> list[Setting]:
    sets = look(record, "data")
    lines: list[Setting] = []
    for name, data in sets.items() if isinstance(sets, Mapping) else ():
        rows = number(data, "rows")
        size = "" if rows is None else f" ({count(rows)} row{'' if rows == 1 else 's'})"
        lines.append(Setting(f"{str(name).capitalize()} set", plain(look(data, "source")) + size))
        if look(data, "fingerprint"):
            lines.append(Setting(f"{str(name).capitalize()} fingerprint", plain(look(data, "fingerprint")), "code"))
    return lines


def _training(record: Any) -> list[Setting]:
    training = look(record, "training")
    lines = [Setting("seed", plain(look(record, "seed")), "code")] if look(record, "seed") is not None else []
    given = training.items() if isinstance(training, Mapping) else ()
    return lines + [Setting(str(key), plain(value), "code") for key, value in given if key != "seed"]


def _software(record: Any) -> list[Setting]:
    lines = [Setting("expunge", plain(look(record, "expunge")), "code")] if look(record, "expunge") else []
    versions = look(record, "versions")
    lines += [Setting(str(k), plain(v), "code") for k, v in (versions.items() if isinstance(versions, Mapping) else ())]
    lines += given(record, platform="Platform", device="Device")
    return lines + ([Setting("Command", plain(look(record, "command")), "code")] if look(record, "command") else [])


def given(part: Any, **names: str) -> list[Setting]:
    """One line for each key of ``part`` that is there, under the name given for it."""
    return [Setting(label, plain(look(part, key))) for key, label in names.items() if look(part, key) is not None]
