"""A folder to compare in; one finished comparison serves many tests."""

from __future__ import annotations

import pytest
from tiny_bench import copied, prepare
from tiny_compare import RECIPE, one_run


@pytest.fixture
def place(workplace, tokenizer, monkeypatch):
    """A folder to work in: ``tofu/``, ``model``, ``retrained`` and ``r.toml``; a cache of its own."""
    prepare(workplace, tokenizer, monkeypatch)
    (workplace / "r.toml").write_text(RECIPE)
    return workplace


@pytest.fixture
def warm(place, tmp_path_factory):
    """``place`` with what its two models answered in the cache."""
    copied(tmp_path_factory, "compare", place, one_run, "cache")
    return place


@pytest.fixture
def finished(place, tmp_path_factory):
    """``place`` after the command was run once."""
    copied(tmp_path_factory, "compare", place, one_run, "cache", "out")
    return place
