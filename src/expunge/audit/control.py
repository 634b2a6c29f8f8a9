"""The control of an audit: a model that never saw the forget rows, by which it is told what was never known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from expunge.audit.settings import Audit
from expunge.models.locate import adapter_base, resolve


@dataclass(frozen=True)
class Control:
    """A model that never saw the forget rows: a ``name``, and of which ``kind``, ``retrained`` or ``base``."""

    name: str
    kind: str


def control_of(settings: Audit) -> Control | None:
    """The control of an audit: a retrained model, the base that is given, or of an adapter its own; None without one."""
    if settings.retrained:
        return Control(settings.retrained, "retrained")
    if settings.base:
        return Control(settings.base, "base")
    source = resolve(settings.target or "")
    if source.kind == "adapter":
        base, _ = adapter_base(Path(source.location))
        return Control(base.location, "base")
    return None
