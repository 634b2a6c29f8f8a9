"""What was measured, of which model and how: the groups of settings on the page of figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.report.format import count, duration, look, number, plain
from expunge.report.settings import STATUS, Setting, given, paper

__all__ = ["paper", "settings"]


def settings(said: Any, models: Mapping[str, str]) -> list[tuple[str, list[Setting]]]:
    """The groups in the order of the page; a group with nothing to say is left out."""
    groups = [
        ("Benchmark", _benchmark(said)),
        ("Models", [line for who, name in models.items() for line in _model(look(said, who), name.capitalize())]),
        ("Teaching", _taught(look(said, "taught"))),
        ("Unlearning", _unlearning(look(said, "unlearning"))),
        ("How they were asked", _asked(said)),
        ("Software", _software(said)),
    ]
    return [(name, lines) for name, lines in groups if lines]


def _benchmark(said: Any) -> list[Setting]:
    source, left = look(said, "data", "source"), look(said, "data", "left_out")
    lines = given(said, benchmark="Name")
    lines += [found] if (found := paper(look(said, "paper"))) else []
    if source:
        lines.append(Setting("Data", ", ".join(map(plain, source)) if isinstance(source, list) else plain(source)))
    if look(said, "data", "fingerprint"):
        lines.append(Setting("Fingerprint of all that was asked", plain(look(said, "data", "fingerprint")), "code"))
    limit = number(said, "limit")
    lines.append(Setting("Rows of each part", "all" if limit is None else f"the first {count(limit)}"))
    return [*lines, Setting("Left out", ", ".join(map(plain, left)) if isinstance(left, list) and left else "nothing")]


def _model(facts: Any, name: str) -> list[Setting]:
    lines = given(facts, source=name)
    known = look(facts, "fingerprint")
    return [*lines, Setting(f"{name}, fingerprint", plain(known), "code")] if known else lines


def _taught(taught: Any) -> list[Setting]:
    return given(taught, source="Base model") + _code(look(taught, "training"))


def _unlearning(made: Any) -> list[Setting]:
    lines = given(made, name="Method", summary="What it does")
    lines += _code(look(made, "parameters"))
    lines += [found] if (found := paper(look(made, "paper"))) else []
    if status := look(made, "status"):
        lines.append(Setting("Status", STATUS.get(str(status), str(status))))
    lines += given(made, adapter="Adapter", steps="Steps")
    if (seconds := number(made, "seconds")) is not None:
        lines.append(Setting("Time", duration(seconds)))
    return lines + given(made, record="Its record")


def _asked(said: Any) -> list[Setting]:
    lines = given(said, dtype="Number format", max_length="Most tokens of a row", chat_template="Chat template")
    seconds = number(said, "seconds")
    return lines if seconds is None else [*lines, Setting("Time", duration(seconds))]


def _software(said: Any) -> list[Setting]:
    own, command = {"expunge": look(said, "expunge")}, {"Command": look(said, "command")}
    return [line for values in (own, look(said, "versions"), command) for line in _code(values)]


def _code(values: Any) -> list[Setting]:
    found = values.items() if isinstance(values, Mapping) else ()
    return [Setting(str(k), plain(v), "code") for k, v in found if v is not None]
