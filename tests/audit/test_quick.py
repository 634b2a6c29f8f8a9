"""The quick audit of a run: which of the run's models is the control, and by which name."""

from __future__ import annotations

import json

import pytest

from expunge.audit import quick
from expunge.audit.control import control_of
from expunge.audit.settings import make
from expunge.unlearning.settings import Recipe


@pytest.mark.parametrize(
    ("given", "control"),
    [
        ({"compare_with": "other", "level": "before"}, ("other", "retrained")),
        ({"level": "before"}, ("before", "base")),  # it may be retrained, and may be the one before fine-tuning
    ],
)
def test_the_control_of_a_run(tmp_path, given, control):
    (tmp_path / "run.json").write_text(json.dumps({"output": {"path": "model"}}))
    settings = make(quick.values(Recipe(model="target", forget="forget.jsonl", **given), tmp_path), "the audit")
    chosen = control_of(settings)
    assert (chosen.name, chosen.kind) == control and settings.model == str(tmp_path / "model")
