"""The groups of settings on the page of figures: benchmark, models, evaluation, software."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.record_types import ComparedModel, CompareRecord, FiguresRecord, ModelFacts, TaughtInfo, UnlearningInfo
from expunge.report.format import count, duration, plain
from expunge.report.settings import STATUS, Setting, code_lines, paper, setting_lines

__all__ = ["paper", "settings"]


MeasuredRecord = FiguresRecord | CompareRecord


def settings(record: MeasuredRecord, models: Mapping[str, str]) -> list[tuple[str, list[Setting]]]:
    """The groups in the order of the page of a complete record; a group with nothing to say is left out."""
    facts: dict[str, ModelFacts | ComparedModel | None] = {"target": record["target"], "retrained": record["retrained"]}
    if "model" in record:
        facts["model"] = record["model"]
    groups = [
        ("Benchmark", _benchmark(record)),
        ("Models", [line for role, name in models.items() for line in _model(facts.get(role), name.capitalize())]),
        ("Teaching", _taught(record["taught"]) if "taught" in record else []),
        ("Unlearning", _unlearning(record["unlearning"]) if "unlearning" in record else []),
        ("How they were asked", _evaluation(record)),
        ("Software", _software(record)),
    ]
    return [(name, lines) for name, lines in groups if lines]


def _benchmark(record: MeasuredRecord) -> list[Setting]:
    source, left_out, limit = record["data"]["source"], record["data"]["left_out"], record["limit"]
    lines = setting_lines(("Name", record["benchmark"]))
    lines += [citation] if (citation := paper(record["paper"])) else []
    if source:
        lines.append(Setting("Data", ", ".join(map(plain, source)) if isinstance(source, list) else plain(source)))
    lines += code_lines({"Fingerprint of all that was asked": record["data"]["fingerprint"] or None})
    lines.append(Setting("Rows of each part", "all" if limit is None else f"the first {count(limit)}"))
    return [*lines, Setting("Left out", ", ".join(map(plain, left_out)) if left_out else "nothing")]


def _model(facts: ModelFacts | ComparedModel | None, name: str) -> list[Setting]:
    if facts is None:
        return []
    return setting_lines((name, facts["source"])) + code_lines({f"{name}, fingerprint": facts["fingerprint"] or None})


def _taught(taught: TaughtInfo | None) -> list[Setting]:
    return setting_lines(("Base model", taught["source"])) + code_lines(taught["training"]) if taught else []


def _unlearning(unlearning: UnlearningInfo | None) -> list[Setting]:
    if unlearning is None:
        return []
    lines = setting_lines(("Method", unlearning["name"]), ("What it does", unlearning["summary"])) + code_lines(
        unlearning["parameters"]
    )
    lines += [citation] if (citation := paper(unlearning["paper"])) else []
    if status := unlearning["status"]:
        lines.append(Setting("Status", STATUS.get(status, status)))
    lines += setting_lines(("Adapter", unlearning["adapter"]), ("Steps", unlearning["steps"]))
    if unlearning["seconds"] is not None:
        lines.append(Setting("Time", duration(unlearning["seconds"])))
    return lines + setting_lines(("Its record", unlearning["record"]))


def _evaluation(record: MeasuredRecord) -> list[Setting]:
    lines = setting_lines(("Number format", record["dtype"]), ("Most tokens of a row", record["max_length"]))
    lines += setting_lines(("Chat template", record["chat_template"]))
    if "seconds" in record and record["seconds"] is not None:
        lines.append(Setting("Time", duration(record["seconds"])))
    return lines


def _software(record: MeasuredRecord) -> list[Setting]:
    return code_lines({"expunge": record["expunge"], **record["versions"], "Command": record["command"]})
