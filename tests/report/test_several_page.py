"""Runs and audits side by side: a line each."""

from __future__ import annotations

import json

import pytest

from expunge.errors import InputError
from expunge.report import several_page

RUN = {
    "schema": 1,
    "created": "2026-03-01T12:00:00+00:00",
    "method": {"name": "npo"},
    "before": {"forget": {"probability": 0.9}, "retain": {"probability": 0.8}},
    "after": {"forget": {"probability": 0.125}, "retain": {"probability": 0.6}},
}


def written(folder, said):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(said))
    return folder


def test_a_run_without_an_audit_has_its_own_figures(tmp_path):
    bare = {**RUN, "before": None, "after": None, "method": {}}
    whole, empty = several_page.lines([written(tmp_path / "whole", RUN), written(tmp_path / "bare", bare)])
    said = dict(zip(several_page.COLUMNS, (value for value, _ in whole.cells), strict=True))
    assert whole.cells[0] == ("–", "not audited") and whole.name == str(tmp_path / "whole") and whole.status == ""
    assert said["Method"] == "npo" and said["Made"] == "1 March 2026, 12:00 UTC"
    assert (said["Forget probability"], said["Probability kept"]) == ("0.12", "0.75")  # of 0.8 are left 0.6
    assert [value for value, _ in empty.cells[:5]] == ["–"] * 5


def test_a_figure_of_attacks_needs_audits(tmp_path):
    with pytest.raises(InputError, match="is a run without an audit; try expunge audit --model"):
        several_page.audits([written(tmp_path / "whole", RUN)])
