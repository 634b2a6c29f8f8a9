"""The record of an audit, ``audit.json``, and the files beside it."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expunge import __version__, files, models, record
from expunge.audit import naming
from expunge.audit.compared import Compared
from expunge.audit.control import Control
from expunge.audit.material import Material, asked, data_source
from expunge.audit.measure import said_of
from expunge.audit.policy import Policy
from expunge.audit.results import Results
from expunge.audit.settings import Audit
from expunge.audit.verdict import Verdict
from expunge.data import sources
from expunge.data.chat import question
from expunge.errors import InputError
from expunge.evaluation.table import Collected
from expunge.files import sha256_file, sha256_folder
from expunge.models.locate import resolve
from expunge.outputs import Layout

FILE, EVIDENCE, CERTIFICATE = "audit.json", "evidence", "certificate.json"
PAGES = ("report.html", "summary.md", "junit.xml")
KIND = "audit"
LAYOUT = Layout(
    FILE,
    f"an earlier audit's {FILE} is here",
    entries=(FILE, "audit.previous.json", *PAGES, "material.json", CERTIFICATE, f"{EVIDENCE}/"),
    evidence=("material.json",),
)
WORST = 10  # rows of the record, without their texts unless asked for


def facts(one: models.Loaded) -> dict[str, Any]:
    """What the record says of a model."""
    return {"source": one.source, "fingerprint": one.fingerprint, "files": hash_of(one.source)}


def hash_of(source: str) -> str | None:
    """SHA-256 of a model's folder or file, None where it is not on this disk."""
    place = Path(resolve(source).location)
    if place.is_dir():
        return sha256_folder(place)
    return sha256_file(place) if place.is_file() else None


def record_of(
    settings: Audit,
    results: Results,
    control: Control | None,
    found: Compared,
    attacks: Sequence[Mapping[str, Any]],
    decided: Verdict,
    policy: Policy,
    *,
    command: str | None,
    seconds: float,
) -> dict[str, Any]:
    """The record, but for the stamp of :func:`write`."""
    rows = results.material
    called = naming.model_names(settings, control)
    models = {role: one.facts | {"source": called[role]} for role, one in results.models.items()}
    if control:
        models["control"]["kind"] = control.kind
    log = {
        "kind": KIND,
        "command": command,
        "title": settings.title,
        "request": settings.request,
        "operator": settings.operator,
        "verdict": {
            "word": decided.word,
            "sentence": decided.sentence,
            "findings": [_finding(asdict(f)) for f in decided.findings],
            "not_concluded": list(dict.fromkeys(found.not_concluded)),
        },
        "models": models,
        "data": data(settings, rows),
        "rewritten": dict(results.rewritten),
        "figures": found.figures,
        "differences": found.differences,
        "membership": found.membership,
        "attacks": [dict(a) for a in attacks],
        "worst": worst(rows, results.tables, found, settings),
        "examples": settings.examples,
        "policy": policy.model_dump(),
        "settings": _settings(settings),
        "seed": settings.seed,
        "run": _run(settings),
        "seconds": seconds,
        "warnings": [*rows.warnings, *(f"the attack {a['name']} was not carried out: {a['problem']}"
                                       for a in attacks if a["problem"])],
    }  # fmt: skip
    return naming.without_paths(log, naming.names(settings, control))


def data(settings: Audit, rows: Material) -> dict[str, Any]:
    """Where each set came from, how many of its rows are measured, and its fingerprint."""
    measured = {"forget": rows.forget, "retain": rows.retain, "holdout": rows.holdout}
    out = {}
    for name, given in rows.given.items():
        source = getattr(settings, name)
        place = Path(source).expanduser() if isinstance(source, str | Path) else None
        out[name] = {
            "source": data_source(source),
            "rows": len(given),
            "measured": len(measured[name]),
            "fingerprint": sources.fingerprint(given),
            "file": sha256_file(place) if place is not None and place.is_file() else None,
        } | ({"known": len(rows.known)} if name == "forget" else {})
    return out


def worst(rows: Material, tables: Mapping[str, Collected], found: Compared, settings: Audit) -> list[dict[str, Any]]:
    """The rows that the unlearned model still knows best; their texts only of the first ``examples``."""
    u, c = found.rows["unlearned"], found.rows.get("control", {})
    n = len(rows.forget)
    key = [float(max(u["recall"][i] if "recall" in u else 0.0, u["probability"][i])) for i in range(n)]
    order = sorted(range(n), key=lambda i: -key[i])[: max(WORST, settings.examples)]
    asked_rows = asked(rows.forget)
    said = {role: said_of(tables[role], "forget") for role in tables}
    out = []
    for k, i in enumerate(order):
        line: dict[str, Any] = {
            "where": rows.forget[i].where,
            "recall": float(u["recall"][i]) if "recall" in u else None,
            "probability": float(u["probability"][i]),
            "control_recall": float(c["recall"][i]) if "recall" in c else None,
        }
        if k < settings.examples:
            line |= {
                "question": question(asked_rows[i]),
                "expected": asked_rows[i].answer,
                "answer": said["unlearned"].get(i),
                "before": said["target"].get(i),
            }
        out.append(line)
    return out


def write(log: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Stamp ``log`` and write record, page, Markdown summary and JUnit file into ``folder``; the record last."""
    from expunge.audit import summary
    from expunge.report.audit_page import write_page

    quoted = bool(log["examples"])
    mode = files.PRIVATE if quoted else files.ORDINARY
    private = [f"{EVIDENCE}/", *(["material.json"] if (folder / "material.json").exists() else [])]
    stamped = {
        "schema": record.SCHEMA,
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **log,
        "evidence": evidence(folder),
        "private_files": [*private, *([FILE, "report.html"] if quoted else [])],
        "versions": record.versions(),
        "platform": platform.platform(),
    }
    plain: dict[str, Any] = files.strict(stamped)
    write_page(plain, folder / "report.html")
    files.replace_text(folder / "summary.md", summary.markdown(plain))
    files.replace_text(folder / "junit.xml", summary.junit(plain))
    files.write_json(folder / FILE, plain, mode=mode)
    return plain


def evidence(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of evidence, by its place in ``folder``."""
    found = [*sorted((folder / EVIDENCE).rglob("*.parquet")), folder / "material.json"]
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in found if p.is_file()}


def read(path: files.PathLike) -> dict[str, Any]:
    """The record of an audit: its folder or ``audit.json``; raises InputError where it is none, or of another schema."""
    place = files.expanded(path)
    file = place / FILE if place.is_dir() else place
    found = files.read_json(file, description="record of an audit", remedy=f"give an audit's folder or its {FILE}")
    if found.get("kind") != KIND:
        raise InputError(f"{file} is no record of an audit; give an audit's folder or its {FILE}")
    return dict(record.check_schema(found, file))


def _finding(of: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in of.items() if k != "hidden"}


def _settings(settings: Audit) -> dict[str, Any]:
    """The settings that are no file, model or text of the user's."""
    left_out = {"model", "target", "forget", "retain", "holdout", "retrained", "base", "out", "title", "request", "operator",
                "overwrite", "run", "examples", "seed", "target_name", "control_name", "data_name"}  # fmt: skip
    return settings.model_dump(exclude=left_out)


def _run(settings: Audit) -> dict[str, Any] | None:
    """The run that wrote the model: its folder, what its record says of the method, and the record's SHA-256."""
    if settings.run is None:
        return None
    folder = Path(settings.run)
    said = record.read(folder)
    method = said.get("method") or {}
    return {
        "folder": settings.run,
        "created": said.get("created"),
        "method": method.get("name"),
        "parameters": method.get("parameters"),
        "record": sha256_file(folder / record.FILE),
    }
