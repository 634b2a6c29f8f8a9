"""An audit for pipelines: Markdown and JUnit XML; and a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from expunge.record import complete
from expunge.record_types import AuditRecord, FindingInfo

SIGNS = {"passed": "✓", "partly": "~", "failed": "✗", "unclear": "?", "noted": "·"}
QUESTIONS = {"gone": "Is it gone?", "kept": "Is the rest still there?", "back": "Does it come back?"}
COLOURS = {
    "forgotten": "green",
    "partly": "yellow",
    "not forgotten": "red",
    "model damaged": "red",
    "cannot be told": "yellow",
}


def markdown(log: Mapping[str, Any]) -> str:
    """The verdict, its reasons and what cannot be concluded, as Markdown."""
    said = complete(AuditRecord, log)
    verdict = said["verdict"]
    lines = [f"# Audit: {verdict['word']}", "", f"{_upper(verdict['sentence'])}.", ""]
    for question, title in QUESTIONS.items():
        found = [f for f in verdict["findings"] if f["question"] == question]
        if found:
            lines += [f"## {title}", "", "| | figure | value | 95 % interval | limit | rows |".replace("95", _level(said)),
                      "|---|---|---|---|---|---|", *map(_row, found), ""]  # fmt: skip
    lines += ["## What cannot be concluded", "", *(f"- {_upper(line)}." for line in verdict["not_concluded"]), ""]
    models = [f"- {role}: `{m['source']}`, fingerprint `{m['fingerprint']}`" for role, m in said["models"].items()]
    sets = [f"- {n}: `{d['source']}`, {d['measured']:g} of {d['rows']:g} rows measured" for n, d in said["data"].items()
            if d["measured"] is not None and d["rows"] is not None]  # fmt: skip
    return "\n".join([*lines, "## Of what", "", *models, *sets, ""])


def _level(said: AuditRecord) -> str:
    return f"{100 * float(said['policy'].get('confidence') or 0.95):g}"


def _row(f: FindingInfo) -> str:
    word = f["outcome"] if f["decides"] else f"{f['outcome']}, does not decide"
    return f"| {SIGNS.get(f['outcome'] or '', '·')} {word} | {f['meaning']} | {_n(f['value'])} | {_n(f['low'])} to {_n(f['high'])} | {limit(f)} | {f['n']:g} |"  # noqa: E501


def limit(f: FindingInfo) -> str:
    """The limit of a finding, with its side."""
    sign = {"lower": "≤", "higher": "≥", "near": "±"}.get(f["better"] or "", "")
    return f"{sign} {_n(f['limit'])}".strip()


def junit(log: Mapping[str, Any]) -> str:
    """The findings as test cases: a failure where one decides and did not pass, skipped where it is unclear."""
    said = complete(AuditRecord, log)
    verdict = said["verdict"]
    suite = ElementTree.Element("testsuite", name="expunge audit", timestamp=said["created"] or "")
    own = ElementTree.SubElement(suite, "testcase", classname="expunge.audit", name="verdict")
    counts = {"tests": 1, "failures": 0, "skipped": 0}
    if verdict["word"] in ("not forgotten", "model damaged", "partly"):
        ElementTree.SubElement(own, "failure", message=f"{verdict['word']}: {verdict['sentence']}")
        counts["failures"] += 1
    elif verdict["word"] != "forgotten":
        ElementTree.SubElement(own, "skipped", message=f"{verdict['word']}: {verdict['sentence']}")
        counts["skipped"] += 1
    for f in verdict["findings"]:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"expunge.audit.{f['question']}", name=f["name"] or ""
        )
        counts["tests"] += 1
        message = f"{f['meaning']} is {_n(f['value'])} [{_n(f['low'])}, {_n(f['high'])}], limit {limit(f)}"
        if f["decides"] and f["outcome"] in ("failed", "partly"):
            ElementTree.SubElement(case, "failure", type=f["outcome"] or "", message=message)
            counts["failures"] += 1
        elif f["outcome"] != "passed":
            ElementTree.SubElement(case, "skipped", message=f"{f['outcome']}: {message}")
            counts["skipped"] += 1
    for name, value in counts.items():
        suite.set(name, str(value))
    ElementTree.indent(suite)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suite, encoding="unicode")}\n'


def lines(log: Mapping[str, Any]) -> list[str]:
    """The answers to the three questions, a line each, for a terminal."""
    said = complete(AuditRecord, log)
    out = []
    for question, title in QUESTIONS.items():
        found = [f for f in said["verdict"]["findings"] if f["question"] == question and f["decides"]]
        if not found:
            out.append(f"{title:<26} not asked")
            continue
        order = ("failed", "partly", "unclear", "passed", "noted")
        worst = min(found, key=lambda f: order.index(f["outcome"] or "noted"))
        passed = sum(f["outcome"] == "passed" for f in found)
        shown = (
            f"{worst['meaning']} {_n(worst['value'])} [{_n(worst['low'])}, {_n(worst['high'])}], limit {limit(worst)}"
        )
        out.append(f"{title:<26} {passed} of {len(found)} checks passed; {worst['outcome']}: {shown}")
    return out


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _upper(text: str | None) -> str:
    return (text or "")[:1].upper() + (text or "")[1:]
