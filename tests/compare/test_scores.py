"""An older comparison gets the scores that its figures give; a newer one keeps its own."""

from __future__ import annotations

import json
from pathlib import Path

from expunge import compare
from expunge.report import compare_page

COMMITTED = Path(__file__).parents[2] / "results" / "tofu-slice-14-methods" / "compare.json"


def test_an_older_comparison_is_scored_from_its_figures():
    old = json.loads(COMMITTED.read_text(encoding="utf-8"))
    new = compare.scored(old)
    assert compare_page.score_columns(old) == [] and new["runs"] != old["runs"]
    rows = {line.name: [value for value, _ in line.cells] for line in compare_page.score_lines(new)}
    assert rows["wga"] == ["0.839", "0.759", "0.798", "0.995"] and rows["retrained"] == [
        "0.833",
        "0.634",
        "1.000",
        "0.976",
    ]
    assert [r["figures"][:-4] for r in new["runs"]] == [r["figures"] for r in old["runs"]], "nothing else changed"
    notes = compare_page.score_notes(new)
    assert notes == [
        "Memorisation: without paraphrased probability, not measured.", "Utility: without fluency, not measured."
    ]  # fmt: skip
    assert compare.scored(new) == new


def test_what_failed_or_is_not_there_stays(tmp_path):
    old = {"runs": [{"name": "a", "figures": []}], "target": None}
    assert compare.scored(old) == old
