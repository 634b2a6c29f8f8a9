"""The charts: which are drawn for which record, what a gap is, and an SVG fit to stand in the page."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from expunge.report.draw import curves as plots

LOSSES = ["Forget loss", "Retain loss"]


def titles(record) -> list[str]:
    return [chart.title for chart in plots.charts(record)]


def test_each_record_gets_the_charts_it_has_values_for(full, minimal, pdu, blur):
    assert titles(full) == LOSSES
    assert titles(minimal) == []
    assert titles(pdu) == [*LOSSES, "Multiplier λ"]  # the retain weight is the multiplier: not drawn twice
    assert titles(blur) == [
        *LOSSES,
        "Weights of the objectives",
        "Cosine of the forget and retain gradients",
        "Gradient norms (log scale)",
    ]


def test_series_leave_out_a_missing_key_and_keep_a_gap():
    steps = [
        {"step": 10, "loss/forget": 1.0},
        {"step": 20},
        {"step": 30, "loss/forget": None},
        {"loss/forget": 2},
    ]
    (line,) = plots.series(steps, "loss/")
    assert (line.name, line.x, line.colour) == ("forget", (10.0, 30.0, 4.0), "forget")
    assert line.y[0] == 1.0 and math.isnan(line.y[1]) and line.y[2] == 2.0
    assert plots.series([{"cosine": None}], "cosine") == []


def test_a_log_chart_has_a_gap_where_a_norm_is_not_positive():
    (line,) = plots.series([{"norm/forget": 0.0}, {"norm/forget": 0.5}], "norm/", positive=True)
    assert math.isnan(line.y[0]) and line.y[1] == 0.5


def test_gaps_are_said_and_a_lonely_point_is_a_dot(broken):
    forget, retain = plots.charts(broken)  # the forget loss misses steps 11 and 13, so step 12 stands alone
    assert forget.note == "Gaps: 2 values are not finite." and retain.note == "Gap: 1 value is not finite."
    dots = r'<use href="#[^"]+" x="[^"]+" y="[^"]+" style="[^"]*fill: var\(--(?:forget|retain)\)'
    assert len(re.findall(dots, forget.svg)) == 1
    assert len(re.findall(dots, retain.svg)) == 0


def test_svg_is_well_formed_with_a_title_in_words_and_colours_of_the_page(blur):
    drawn = [*plots.charts(blur), plots.movement(blur)]
    ids: list[str] = []
    for chart in drawn:
        root = ElementTree.fromstring(chart.svg)
        ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert root.attrib["role"] == "img" and "viewBox" in root.attrib and "width" not in root.attrib
        assert (root[0].tag, root[0].attrib["id"]) == ("title", root.attrib["aria-labelledby"])
        assert not re.search(r"https?:|<metadata|<script|<style|#[0-9a-f]{6}", chart.svg)
        for use in re.findall(r'(?:href="|url\()#([^")]+)', chart.svg):
            assert use in ids
    assert len(ids) == len(set(ids))
    assert "var(--forget)" in drawn[0].svg and "var(--retain)" not in drawn[0].svg
    assert "var(--retain)" in drawn[1].svg and "var(--forget)" not in drawn[1].svg


def test_title_gives_first_last_lowest_and_highest():
    losses = [(1, 2.0), (2, 0.5), (3, 4.0), (4, 1.0)]
    (chart,) = plots.charts({"steps": [{"step": at, "loss/forget": y} for at, y in losses]})
    assert '<title id="loss-0-title">Forget loss. forget: 2 at step 1, 1 at step 4, lowest 0.5, highest 4.' in chart.svg


def test_movement_needs_a_before_and_an_after(full, minimal, broken):
    chart = plots.movement(full)
    assert chart is not None
    assert "forget: 0.82 before, 0.05 after, 0.06 for the reference; retain: 0.80 before, 0.75 after" in chart.svg
    assert plots.movement(minimal) is None
    assert plots.movement(broken) is not None  # the retain figures are still there


def test_a_hostile_name_stays_text():
    name = 'loss/<script>alert("$x_1$")</script>'
    weights = {"weight/<b>": 1.0, "weight/forget": 2.0}
    record = {"steps": [{"step": 1, name: 1.0, **weights}, {"step": 2, name: 2.0, **weights, "weight/<b>": 3.0}]}
    for chart in plots.charts(record):
        tags = {element.tag for element in ElementTree.fromstring(chart.svg).iter()}
        assert tags <= {"svg", "title", "g", "path", "defs", "use", "text", "clipPath", "rect", "tspan"}


@pytest.mark.parametrize("count", [1, 2, 20_000])
def test_one_step_and_very_many(count: int):
    steps = [{"step": at, "loss/forget": math.sin(at), "norm/forget": 1.0} for at in range(1, count + 1)]
    charts = plots.charts({"steps": steps})
    assert [chart.title for chart in charts] == ["Forget loss", "Gradient norms (log scale)"]
    assert all(len(chart.svg) < 1_500_000 for chart in charts)


def test_the_same_record_gives_the_same_bytes(blur):
    assert [chart.svg for chart in plots.charts(blur)] == [chart.svg for chart in plots.charts(blur)]
