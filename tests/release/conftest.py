"""Quick releases: a page only where a test reads it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_page(request, monkeypatch):
    """The page is drawn only where a test reads it."""
    if "page" not in request.fixturenames:
        monkeypatch.setattr("expunge.report.write_report", lambda *_: None)


@pytest.fixture
def page():
    """The page is drawn."""
