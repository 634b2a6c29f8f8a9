"""What a metric on texts needs."""

from __future__ import annotations

import pytest


@pytest.fixture
def scorer():
    pytest.importorskip("rouge_score", reason="ROUGE needs expunge[bench]")
