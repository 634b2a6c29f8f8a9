"""Evaluations of tiny models: enough resamples for an interval to hold its figure, and no more."""

from __future__ import annotations

import pytest
from intervals import few_resamples


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    few_resamples(monkeypatch.setattr, 200)
