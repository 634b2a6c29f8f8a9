"""Several finished runs and audits side by side: one line each, as a page and for a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import files, record
from expunge.errors import InputError
from expunge.files import replace_text
from expunge.record import complete
from expunge.record_types import AuditRecord, RunRecord
from expunge.report.audit_page import CLASSES, interval, number
from expunge.report.format import DASH, day
from expunge.report.html import page
from expunge.report.worst import worst

COLUMNS = ("Verdict", "Method", "Forget probability", "Probability kept", "Worst attack", "Made")


@dataclass(frozen=True)
class Line:
    """A run or an audit: its folder, its cells in the order of ``COLUMNS`` as (value, hint), the class of its verdict."""

    name: str
    cells: tuple[tuple[str, str], ...]
    status: str = ""


def read(path: files.PathLike) -> tuple[str, dict[str, Any]]:
    """(``run`` or ``audit``, the record) of a folder or file; InputError where it is neither."""
    place = files.expanded(path)
    for kind, name in (("audit", "audit.json"), ("run", record.FILE)):
        file = place / name if place.is_dir() else place
        if file.name == name and file.is_file():
            said = files.read_json(file, description="record", remedy="give the folder of a run or of an audit")
            return kind, record.check_schema(said, file)
    raise InputError(
        f"{os.fspath(path)} holds neither audit.json nor run.json; give the folder of a run or of an audit"
    )


def line(name: str, kind: str, said: Mapping[str, Any]) -> Line:
    """One record as a line."""
    return _audit(name, complete(AuditRecord, said)) if kind == "audit" else _run(name, complete(RunRecord, said))


def _audit(name: str, said: AuditRecord) -> Line:
    word = said["verdict"]["word"] or DASH
    kept = next(
        (f for f in said["verdict"]["findings"] if (f["name"] or "").startswith("kept/") and f["decides"]), None
    )
    found = next(
        (f for f in said["figures"] if (f["part"], f["name"], f["model"]) == ("forget", "probability", "unlearned")),
        None,
    )
    back = worst(said)
    method = str((said.get("run") or {}).get("method") or DASH)
    cells = (
        (word, ""),
        (method, ""),
        (number(found["value"]), interval(found["low"], found["high"])) if found else (DASH, ""),
        (number(kept["value"]), interval(kept["low"], kept["high"])) if kept else (DASH, ""),
        (number(back[0]), back[3]) if back else (DASH, ""),
        (day(said["created"]) if said["created"] else DASH, ""),
    )
    return Line(name, cells, CLASSES.get(word, ""))


def _run(name: str, said: RunRecord) -> Line:
    def figure(when: str, part: str) -> float | None:
        found: Mapping[str, Any] = (said[when] or {}).get(part) or {}  # type: ignore[literal-required]
        value = found.get("probability")
        return float(value) if isinstance(value, int | float) else None

    before, after = figure("before", "retain"), figure("after", "retain")
    kept = after / before if before and after is not None else None
    cells = (
        (DASH, "not audited"),
        (said["method"]["name"] or DASH, ""),
        (number(figure("after", "forget")), ""),
        (number(kept), ""),
        (DASH, ""),
        (day(said["created"]) if said["created"] else DASH, ""),
    )
    return Line(name, cells)


def read_last(path: files.PathLike) -> tuple[str, dict[str, Any]]:
    """As :func:`read`; of a run that ended with an audit that of the audit."""
    kind, said = read(path)
    inside = files.expanded(path) / "audit"
    return read(inside) if kind == "run" and (inside / "audit.json").is_file() else (kind, said)


def lines(paths: Sequence[files.PathLike]) -> list[Line]:
    """A line for each of ``paths``, in their order."""
    return [line(os.fspath(p), *read_last(p)) for p in paths]


def audits(paths: Sequence[files.PathLike]) -> list[tuple[str, dict[str, Any]]]:
    """The last part of each of ``paths`` and the record of its audit; InputError for a run without one."""
    out = []
    for p in paths:
        kind, said = read_last(p)
        if kind != "audit":
            raise InputError(f"{os.fspath(p)} is a run without an audit; try expunge audit --model {os.fspath(p)}")
        out.append((os.path.basename(os.path.normpath(os.fspath(p))).removesuffix(".json"), said))
    return out


def render(found: Sequence[Line]) -> str:
    """The page."""
    return page(
        "several.html.j2", source="the records", version="", title="Runs and audits", columns=COLUMNS, lines=found
    )


def write_page(found: Sequence[Line], path: files.PathLike) -> Path:
    """Write the page to the file ``path``."""
    return replace_text(Path(path), render(found))
