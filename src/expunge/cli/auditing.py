"""The quick audit with which a run ends: whatever goes wrong with it, the run is safe."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge import processes
from expunge.errors import InputError

WORDS = ("forgotten", "partly")


def impossible(settings: Any) -> str | None:
    """Why a run of ``settings`` cannot end with an audit; None where it can."""
    if any(importlib.util.find_spec(name) is None for name in ("scipy", "rouge_score")):
        return "it needs pip install 'expunge[audit]'"
    from expunge.audit import quick

    return quick.impossible(settings)


@dataclass(frozen=True)
class Audited:
    """What came of it: the record, or None and a warning why not."""

    log: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def word(self) -> str:
        """The verdict."""
        return str(self.log["verdict"]["word"]) if self.log else "cannot be told"

    @property
    def value(self) -> dict[str, Any] | None:
        """What JSON says of it."""
        return {"verdict": self.word, "sentence": self.log["verdict"]["sentence"]} if self.log else None


def check(wanted: bool, fail_unless: str | None, settings: Any) -> None:
    """Raise InputError for a verdict that there is not, or one that is wanted of an audit that cannot be."""
    if fail_unless is None:
        return
    if fail_unless not in WORDS:
        raise InputError(f"--fail-unless takes {' or '.join(WORDS)}, not {fail_unless!r}")
    why = impossible(settings) if wanted else "--no-audit was given"
    if why:
        raise InputError(f"--fail-unless needs the audit after the run, which there is not: {why}")


def after(settings: Any, folder: Path) -> Audited | None:
    """The quick audit of a run that wrote ``folder``; None where there is none to carry out."""
    if not processes.is_main() or impossible(settings):
        return None
    from expunge.audit import quick

    try:
        return Audited(quick.audit(settings, folder).record)
    except (InputError, OSError, RuntimeError, MemoryError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        return Audited(warnings=[f"the run is whole, its audit is not: {first}; try expunge audit --model {folder}"])
