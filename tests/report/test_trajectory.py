"""The trajectory of a release on the page: rows, sentences, the figure's words; escaped; any part may be missing."""

from __future__ import annotations

import copy

import pytest

from expunge.report import render
from expunge.report.trajectory import chart, sentences, table

EVIL = "<script>alert('x')"


def step(at, forget, retain, penalty=2.5):
    return {
        "step": at,
        "figures": {"forget": {"nll": forget}, "retain": {"nll": retain}},
        "penalty": penalty if at else None,
        "seconds": 61.0,
    }


@pytest.fixture
def released(full):
    record = copy.deepcopy(full)
    record["release"] = {
        "trajectory": [step(0, 0.5, 1.0), step(1, 1.5, 1.02), step(2, 2.25, 1.2)],
        "kept": 1,
        "stopped": "retain nll is 1.2 after step 2, and the budget ends at 1.05",
        "forget_figure": "forget/nll",
        "utility_figure": "retain/nll",
        "better": "lower",
        "budget": {"relative": 0.05, "limit": 1.05},
        "svd_error": {"rank": 4, "overall": 0.125, "modules": {"a": 0.1, "b": 0.5}},
    }
    return record


def test_the_rows(released):
    rows = table(released)
    assert rows.columns == ("Forget loss", "Retain loss", "Penalty", "Time")
    assert [(r.name, r.hint) for r in rows.rows] == [
        ("0 (target)", ""),
        ("1", "the result"),
        ("2", "outside the budget"),
    ]
    assert rows.rows[0].cells == ("0.5", "1", "–", "–")
    assert rows.rows[2].cells == ("2.25", "1.2", "2.5", "1 min 1 s")


def test_the_sentences(released):
    kept_sentence, cut = sentences(released)
    assert kept_sentence == "Step 1 is the result: retain nll is 1.2 after step 2, and the budget ends at 1.05."
    assert "cut to rank 4; that lost 12 % of the change" in cut and "50 % in the layer" in cut
    released["release"] |= {"kept": 0, "svd_error": None}
    assert sentences(released)[0].startswith("The target itself is the result: ")


def test_the_figure_and_its_words(released):
    figure = chart(released)
    assert figure.title == "Retain loss against forget loss, step by step"
    assert "step 1 (kept): Forget loss 1.5, Retain loss 1.02" in figure.svg
    assert "The budget ends at 1.05." in figure.svg and figure.note.endswith("Inside the budget is below the line.")
    for text in (">target<", ">1, kept<", ">2<", ">budget<"):
        assert text in figure.svg
    assert chart(released).svg == figure.svg


def test_names_that_would_touch_give_way_to_the_kept_step(released):
    released["release"]["trajectory"][1] = step(1, 0.5001, 1.0001)
    svg = chart(released).svg
    assert ">1, kept<" in svg and ">target<" not in svg and ">2<" in svg


def test_a_figure_that_is_better_higher(released):
    released["release"] |= {"better": "higher", "utility_figure": "ner/mean_f1", "budget": {"limit": 0.6}}
    for s, f1 in zip(released["release"]["trajectory"], (0.8, 0.7, 0.5), strict=True):
        s["figures"]["ner"] = {"mean_f1": f1}
    assert [r.hint for r in table(released).rows] == ["", "the result", "outside the budget"]
    assert table(released).columns[1] == "Ner mean f1" and chart(released).note.endswith("above the line.")


def test_what_is_missing_is_left_out(released, full):
    assert table(full) is None and chart(full) is None and sentences(full) == [] and "Step by step" not in render(full)
    released["release"] |= {"utility_figure": None, "budget": None}
    assert table(released).columns == ("Forget loss", "Penalty", "Time") and chart(released) is None
    released["release"] = {"trajectory": [{}, step(1, None, float("nan"))]}
    assert table(released).rows[1].cells == ("2.5", "1 min 1 s") and "Step by step" in render(released)
    for part in list(released["release"]):
        for broken in (None, 3, "x", [], {}, [None]):
            render(released | {"release": {**released["release"], part: broken}})
    destroyed = step(2, 1.0, 1.0) | {"figures": {}}
    released["release"] = {"trajectory": [step(0, 0.5, 1.0), step(1, 1.0, 1.0), destroyed],
                           "forget_figure": "forget/nll", "utility_figure": "retain/nll"}  # fmt: skip
    assert table(released).rows[2].cells[:2] == ("–", "–") and "step 2" not in chart(released).svg


def test_the_page_shows_it_escaped(released):
    text = render(released)
    assert text.count("Step by step") == 1 and "1.05." in text and "the losses start again" in text
    released["release"] |= {"stopped": EVIL, "forget_figure": f"forget/{EVIL}", "utility_figure": f"{EVIL}/nll"}
    for s in released["release"]["trajectory"]:
        s["figures"] = {"forget": {EVIL: 1.0 + s["step"]}, EVIL: {"nll": 2.0}}
    text = render(released)
    assert "<script" not in text and text.count("&lt;script&gt;alert") > 6


def test_a_release_that_looked_at_other_figures_leads_with_them(released):
    record = copy.deepcopy(released) | {"before": {}, "after": {}, "reference": None}
    for at in record["release"]["trajectory"]:
        at["figures"] = {"toxic": {"mean": at["figures"]["forget"]["nll"]}, "texts": {"perplexity": 30.25}}
    record["release"] |= {"forget_figure": "toxic/mean", "utility_figure": "texts/perplexity"}
    page = render(record)
    assert "Toxic mean went from 0.5 to 1.5 and Texts perplexity went from 30.25 to 30.25." in page
    assert "measured by the watched figure alone" in page and "No rows were scored" not in page
    assert "0.5 → 1.5" in page and 'id="retain-figures"' not in page and "no figures that say" not in page
    del record["release"]["trajectory"][1]["figures"]["toxic"]  # the step that was kept
    assert "no figures that say" in render(record)
    assert 'id="retain-figures"' in render(released) and "Toxic" not in render(released)
