"""The figure of scores: methods by their mean, a mark a seed where its number says, every number in words."""

from __future__ import annotations

import re

import pytest

from expunge.report import compare_page
from expunge.report.draw import scores


def model(value, room=None):
    ends = (None, None) if room is None else (value - room, value + room)
    return [{"part": "all", "name": "score", "value": value, "low": ends[0], "high": ends[1], "n": 9, "note": ""}]


@pytest.fixture
def record():
    def run(label, value, seed):
        made = {
            "name": f"{label}{seed}",
            "label": label,
            "shown": label,
            "seed": seed,
            "done": True,
            "choice": {},
            "given": {},
        }
        return made | {"figures": model(value, 0.05), "method": {"name": label}, "training": {}}

    runs = [run("low", 0.2, 0), run("high", 0.6, 0), run("low", 0.4, 1), run("high", 0.8, 1)]
    runs.append({"name": "x", "label": "none", "shown": "none", "seed": 0, "done": False, "figures": []})
    beside = {
        "target": {"source": "t", "figures": model(0.1)},
        "retrained": {"source": "r", "figures": model(0.9, 0.02)},
    }
    return {"runs": runs, "seeds": [0, 1], "benchmark": "tofu/forget01", **beside}


def test_methods_come_by_their_mean(record):
    assert [(line.name, pytest.approx(line.mean)) for line in scores.lines(record)] == [("high", 0.7), ("low", 0.3)]
    assert scores.lines(record, "all/privacy") == []
    assert scores.chart(record | {"runs": record["runs"][-1:]}) is None


def test_every_number_is_in_words(record, charts):
    picture = scores.chart(record).svg
    (words,) = re.findall(r'<title id="scores-title">(.*?)</title>', picture)
    assert words == (
        "Scores, the best mean first. retrained 0.9 (0.88 to 0.92). target 0.1. "
        "high: mean 0.7; seed 0: 0.6 (0.55 to 0.65), seed 1: 0.8 (0.75 to 0.85). "
        "low: mean 0.3; seed 0: 0.2 (0.15 to 0.25), seed 1: 0.4 (0.35 to 0.45)."
    )


def test_a_mark_stands_where_its_number_says(record):
    """Read back: the marks of one method are apart in height, and their places affine in the score."""
    record["runs"] = [r for r in record["runs"] if r["label"] == "low"]
    record["runs"][1]["figures"] = model(1.0)
    marks = re.findall(
        r'<use href="#[^"]*" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--run', scores.chart(record).svg
    )
    spots = [(float(x), float(y)) for x, y in marks]
    assert len(spots) == 2 and spots[0][1] < spots[1][1]
    for (x, _), value in zip(spots, (0.2, 1.0), strict=True):
        assert x == pytest.approx(200 + (912 - 200 - 8) * (value + 0.02) / 1.04, abs=0.5)


def test_the_page_has_the_table_and_says_what_is_missing(record, charts):
    record["runs"][0]["figures"][0] |= {"value": None, "note": "not defined without privacy (needs a retrained model)"}
    page = compare_page.render(record)
    assert "The scores" in page and "Score: not defined without privacy (needs a retrained model)." in page
    assert compare_page.score_columns(record) == ["Score"]
    assert [line.cells[0][0] for line in compare_page.score_lines(record)] == [
        "0.100",
        "0.900",
        "–",
        "0.600",
        "0.400",
        "0.800",
    ]
    assert "The scores" not in compare_page.render(record | {"runs": []})
