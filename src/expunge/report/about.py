"""What was measured, of which model and how: the groups of settings on the page of figures."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.record_types import ComparedModel, CompareRecord, FiguresRecord, ModelFacts, TaughtInfo, UnlearningInfo
from expunge.report.format import count, duration, plain
from expunge.report.settings import STATUS, Setting, code, named, paper

__all__ = ["paper", "settings"]


Said = FiguresRecord | CompareRecord


def settings(said: Said, models: Mapping[str, str]) -> list[tuple[str, list[Setting]]]:
    """The groups in the order of the page of a complete record; a group with nothing to say is left out."""
    facts: dict[str, ModelFacts | ComparedModel | None] = {"target": said["target"], "retrained": said["retrained"]}
    if "model" in said:
        facts["model"] = said["model"]
    groups = [
        ("Benchmark", _benchmark(said)),
        ("Models", [line for who, name in models.items() for line in _model(facts.get(who), name.capitalize())]),
        ("Teaching", _taught(said["taught"]) if "taught" in said else []),
        ("Unlearning", _unlearning(said["unlearning"]) if "unlearning" in said else []),
        ("How they were asked", _asked(said)),
        ("Software", _software(said)),
    ]
    return [(name, lines) for name, lines in groups if lines]


def _benchmark(said: Said) -> list[Setting]:
    source, left, limit = said["data"]["source"], said["data"]["left_out"], said["limit"]
    lines = named(("Name", said["benchmark"]))
    lines += [found] if (found := paper(said["paper"])) else []
    if source:
        lines.append(Setting("Data", ", ".join(map(plain, source)) if isinstance(source, list) else plain(source)))
    lines += code({"Fingerprint of all that was asked": said["data"]["fingerprint"] or None})
    lines.append(Setting("Rows of each part", "all" if limit is None else f"the first {count(limit)}"))
    return [*lines, Setting("Left out", ", ".join(map(plain, left)) if left else "nothing")]


def _model(facts: ModelFacts | ComparedModel | None, name: str) -> list[Setting]:
    if facts is None:
        return []
    return named((name, facts["source"])) + code({f"{name}, fingerprint": facts["fingerprint"] or None})


def _taught(taught: TaughtInfo | None) -> list[Setting]:
    return named(("Base model", taught["source"])) + code(taught["training"]) if taught else []


def _unlearning(made: UnlearningInfo | None) -> list[Setting]:
    if made is None:
        return []
    lines = named(("Method", made["name"]), ("What it does", made["summary"])) + code(made["parameters"])
    lines += [found] if (found := paper(made["paper"])) else []
    if status := made["status"]:
        lines.append(Setting("Status", STATUS.get(status, status)))
    lines += named(("Adapter", made["adapter"]), ("Steps", made["steps"]))
    if made["seconds"] is not None:
        lines.append(Setting("Time", duration(made["seconds"])))
    return lines + named(("Its record", made["record"]))


def _asked(said: Said) -> list[Setting]:
    lines = named(("Number format", said["dtype"]), ("Most tokens of a row", said["max_length"]))
    lines += named(("Chat template", said["chat_template"]))
    if "seconds" in said and said["seconds"] is not None:
        lines.append(Setting("Time", duration(said["seconds"])))
    return lines


def _software(said: Said) -> list[Setting]:
    return code({"expunge": said["expunge"], **said["versions"], "Command": said["command"]})
