"""A guard over a scripted endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_guard import ADA, BO, Script

from expunge.guard import Guard, Settings, Target


@pytest.fixture
def guarded() -> Callable[..., tuple[Guard, Script]]:
    """A guard over a script, of two targets; keywords are the agents' replies."""

    def make(targets: tuple[Target, ...] = (ADA, BO), settings: dict[str, Any] | None = None, **replies: Any):
        script = Script(**replies)
        return Guard(script, targets, Settings(**(settings or {}))), script

    return make
