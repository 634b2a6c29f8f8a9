"""A folder to tune in; one finished tuning serves many tests."""

from __future__ import annotations

import shutil

import pytest
from intervals import few_resamples
from launch import once
from tiny_tune import other_model, settings

from expunge import tune


@pytest.fixture
def place(workplace, tokenizer, monkeypatch):
    """A folder to work in: ``model``, ``other``, ``forget.jsonl`` (3 rows) and ``retain.jsonl`` (5 rows)."""
    other_model(tokenizer)
    few_resamples(monkeypatch.setattr)
    return workplace


@pytest.fixture
def finished(place, tmp_path_factory):
    """``place`` with ``out/`` of a finished tuning, the trials' weights included."""

    def make(shared):
        tune.run(settings(keep_models=True), command="expunge tune")
        shutil.copytree("out", shared / "out")
        shutil.rmtree("out")

    shared = once(tmp_path_factory, "tune", make)
    shutil.copytree(shared / "out", place / "out")
    return place
