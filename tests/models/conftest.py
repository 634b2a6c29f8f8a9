"""A saved tiny model, and a machine without the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_lora import tiny, words

import expunge.models.locate as resolving


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model saved by plain transformers, pad token unset."""
    tiny().save_pretrained(tmp_path / "base")
    words().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache and no Hub, and nothing remembered of it."""
    from huggingface_hub import constants

    resolving._ask_hub.cache_clear()
    resolving._warn_once.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
