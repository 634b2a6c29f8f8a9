"""The page of figures: every model's column, escaped, whole, and saying what it does not show."""

from __future__ import annotations

import subprocess
import sys

import pytest
from html_page import EVIL, Page

from expunge.report.bench_page import columns, render, rows, summary, tiles, write_report
from expunge.report.draw.forest import Line, forest


def figure(name, value, low=None, high=None, part="forget", n=4, note=""):
    return {"name": name, "value": value, "n": n, "low": low, "high": high, "part": part, "note": note}


def figures(shift=0.0, beside=True):
    own = [
        figure("probability", 0.8 - shift, 0.7 - shift, 0.9 - shift),
        figure("rouge_l_recall", 0.6, 0.5, 0.7),
        figure("probability", 0.4, 0.3, 0.5, part="real_authors"),
        figure("model_utility", 0.5 - shift / 10, 0.4, 0.6, part="all", n=9),
        figure("mia_min_k_plus_plus_auc", 0.9, 0.8, 1.0, note="1: seen, 0.5: unseen"),
    ]
    more = [
        figure("forget_quality", 3.2e-14, note="p of a KS test"),
        figure("truth_ratio_difference", -0.2, -0.3, -0.1, note="not shown equal within 0.05 (TOST)"),
    ]
    return own + more * beside


@pytest.fixture
def record():
    return {
        "benchmark": "tofu/forget01",
        "paper": "arXiv:2401.06121",
        "created": "2026-11-21T08:00:00+00:00",
        "command": "expunge bench tofu/forget01 --model TinyTarget",
        "unlearning": {
            "name": "npo",
            "parameters": {"beta": 0.1},
            "paper": "arXiv:2404.05868",
            "status": "unreproduced",
        },
        "model": {"source": "run/model", "fingerprint": "sha256:aa"},
        "target": {"source": "TinyTarget", "fingerprint": "sha256:bb"},
        "retrained": {"source": "TinyRetrained", "fingerprint": "sha256:cc"},
        "data": {"source": "tofu-slice", "fingerprint": "sha256:dd", "left_out": ["world_facts"]},
        "limit": 4,
        "dtype": "float32",
        "seconds": 61.0,
        "versions": {"torch": "2.13"},
        "expunge": "0.1.0",
        "figures": figures(0.6),
        "beside": {"target": figures(), "retrained": figures(0.7, beside=False)},
    }


def test_what_the_page_says(record):
    text = " ".join("".join(Page(render(record)).text).split())
    for part in (
        "tofu/forget01, unlearned with npo",
        "probability of the forget answers went from 0.800 to 0.200 (retrained model: 0.100)",
        "model utility went from 0.500 to 0.440",
        "TinyTarget",
        "Real authors: probability",
        "ROUGE-L recall",
        "Min-K++ AUC",
        "3.2e-14",
        "0.100 to 0.300",
        "not shown equal within 0.05 (TOST)",
        "Only the first 4 rows of each part",
        "world_facts",
        "the p-value of a KS test",
        "ROUGE counts shared words",
        "expunge rescore FOLDER",
        "1 min 1 s",
        "sha256:dd",
        "not a certificate",
    ):
        assert part in text, part
    assert "No model that never saw" not in text


def test_one_row_a_figure_and_one_column_a_model(record):
    assert list(columns(record).values()) == ["target", "unlearned", "retrained"]
    by_key = {(r.part, r.name): r for r in rows(record)}
    assert len(by_key) == 7
    assert {w: f["value"] for w, f in by_key["forget", "probability"].figures.items()} == pytest.approx(
        {"model": 0.2, "target": 0.8, "retrained": 0.1}
    )
    assert set(by_key["forget", "forget_quality"].figures) == {"model", "target"}
    assert [t.value for t in tiles(record)][:2] == ["0.800 → 0.200", "0.500 → 0.440"]
    alone = {k: v for k, v in record.items() if k not in ("target", "retrained", "beside", "unlearning")}
    assert list(columns(alone).values()) == ["model"] and "is 0.200" in summary(alone)
    assert "No model that never saw" in render(alone)


def test_the_page_is_whole_and_escaped(record):
    record |= dict.fromkeys(("benchmark", "paper", "created", "command", "expunge", "dtype"), EVIL)
    record["unlearning"] = dict.fromkeys(record["unlearning"], EVIL) | {"parameters": {EVIL: EVIL}}
    for who in ("model", "target", "retrained"):
        record[who] = {"source": EVIL, "fingerprint": EVIL}
    record["data"] = {"source": EVIL, "fingerprint": EVIL, "left_out": [EVIL]}
    record["versions"] = {EVIL: EVIL}
    for f in record["figures"]:
        f |= {"name": EVIL + f["name"], "part": EVIL, "note": EVIL}
    text = render(record)
    page = Page(text)
    assert "<script" not in text and "<img" not in text and text.count("&lt;script&gt;alert") > 15
    assert not any(name.startswith("on") or name == "src" for _, name, _ in page.attributes)
    ids = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(ids) == len(set(ids)) and not {"script", "link", "img", "iframe", "object"} & set(page.tags)


@pytest.mark.parametrize(
    "record", [{}, {"figures": 3, "beside": [], "data": "x", "model": 1, "limit": "y", "versions": 2}]
)
def test_a_record_of_nonsense_still_gives_a_page(record):
    assert "One model was asked" in render(record)


def test_only_what_fits_an_axis_from_0_to_1_is_drawn():
    inside, outside = Line("in", {"model": (0.5, 0.4, 0.6)}), Line("out", {"model": (0.5, -0.4, 0.6)})
    bare = Line("bare", {"model": (0.5, None, None)})
    chart = forest("x", "Heading", [inside, outside, bare], {"model": "model"})
    assert "in: model 0.5 (0.4 to 0.6)." in chart.svg and "out:" not in chart.svg and "bare" not in chart.svg
    assert "in the table only" in chart.note and forest("x", "Heading", [bare], {"model": "model"}) is None


def test_the_page_needs_no_torch(record, tmp_path):
    write_report(record, tmp_path)
    assert (tmp_path / "report.html").read_text() == render(record)
    code = "import sys; from expunge.report.bench_page import render; render({}); print({'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
