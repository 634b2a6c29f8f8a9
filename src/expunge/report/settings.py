"""Record -> the settings of the run, as groups of named lines: method, model, data, training, software."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.record import complete
from expunge.record_types import RunRecord
from expunge.report.format import count, plain, scale

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


def settings(raw_record: Any) -> list[tuple[str, list[Setting]]]:
    """The groups of settings in the order of the page; a group with nothing to say is left out."""
    record = complete(RunRecord, raw_record)
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
    match = re.fullmatch(r"arXiv:(\d{4}\.\d{4,5}(?:v\d+)?)", str(name), flags=re.IGNORECASE)
    if not match:
        return Setting("Paper", str(name))
    return Setting("Paper", str(name), "link", f"https://arxiv.org/abs/{match[1]}")


def _method(record: RunRecord) -> list[Setting]:
    method = record["method"]
    objectives = method["objectives"]
    lines = setting_lines(("Name", method["name"]), ("What it does", method["summary"]))
    lines += setting_lines(("How the objectives meet", method["combiner"]))
    if objectives:
        listed = ", ".join(f"{name}: {plain(loss)}" for name, loss in objectives.items())
        lines.insert(min(len(lines), 2), Setting("Objectives", listed))
    lines += code_lines(method["parameters"])
    source = paper(method["paper"])
    status = method["status"]
    return [
        *lines,
        *([source] if source else []),
        *([Setting("Status", STATUS.get(status, status))] if status else []),
    ]


def _model(record: RunRecord) -> list[Setting]:
    model, output = record["model"], record["output"]
    total, trained = model["parameters"], model["trainable"]
    lines = setting_lines(("Source", model["source"])) + code_lines(
        {"Source fingerprint": model["fingerprint"] or None}
    )
    if total is not None:
        lines.append(Setting("Parameters", f"{scale(total)} ({count(total)})"))
    if trained is not None:
        share = f", {100 * trained / total:.1f} % of all" if total else ""
        lines.append(Setting("Trained parameters", f"{scale(trained)} ({count(trained)}){share}"))
    if parent := record["parent"]:
        lines += setting_lines(("Earlier run", parent["run"]))
    lines += code_lines({"Trained weights": model["trains"] or None})
    lines += setting_lines(("Number format", model["dtype"]), ("Adapter", model["adapter"]))
    lines += code_lines({"Adapter settings": model["adapter_config"] or None}) + setting_lines(
        ("Written to", output["path"])
    )
    if rank := output["rank"]:
        lost = f" of {rank['sum']}, cut by SVD with a relative error of {rank['error']:.3g}" if rank["error"] else ""
        lines.append(Setting("Rank with the earlier adapter", f"{rank['saved']}{lost}"))
    return lines + code_lines(
        {"Output fingerprint": output["fingerprint"] or None, "Hash of its files": output["files"] or None}
    )


def _data(record: RunRecord) -> list[Setting]:
    lines: list[Setting] = []
    for name, data in record["data"].items():
        rows = data["rows"]
        size = "" if rows is None else f" ({count(rows)} row{'' if rows == 1 else 's'})"
        label = str(name).replace("_", " ").capitalize()
        lines.append(Setting(f"{label} set", plain(data["source"]) + size))
        lines += code_lines({f"{label} fingerprint": data["fingerprint"] or None})
    return lines


def _training(record: RunRecord) -> list[Setting]:
    arguments = [Setting(str(k), plain(v), "code") for k, v in record["training"].items() if k != "seed"]
    return code_lines({"seed": record["seed"]}) + arguments


def _software(record: RunRecord) -> list[Setting]:
    lines = code_lines({"expunge": record["expunge"] or None, **record["versions"]})
    lines += setting_lines(("Platform", record["platform"]), ("Device", record["device"]))
    return lines + code_lines({"Command": record["command"] or None})


def setting_lines(*lines: tuple[str, Any]) -> list[Setting]:
    """One line for each name that has a value."""
    return [Setting(name, plain(value)) for name, value in lines if value is not None]


def code_lines(values: Mapping[str, Any]) -> list[Setting]:
    """As :func:`setting_lines`, shown as code."""
    return [Setting(str(name), plain(value), "code") for name, value in values.items() if value is not None]
