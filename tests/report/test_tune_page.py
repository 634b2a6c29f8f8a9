"""The page of a tuning: the best of each method, the front, every trial, and whatever the record lacks."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as tree

import pytest

from expunge.report import tune_page
from expunge.report.draw import front


def figures(forget, retain, width=0.05):
    values = {"forget": forget, "retain": retain}
    return [
        {"part": part, "name": "probability", "value": v, "low": v - width, "high": v + width, "n": 9, "note": ""}
        for part, v in values.items()
    ]


def run(label, number, forget, retain, score, **more):
    whole = {"name": f"{label}-{number:04d}", "label": label, "number": number, "state": "finished", "steps": 9}
    whole |= {"choice": {"learning_rate": 0.00123456, "retain": "kl"}, "seconds": 3.0, "front": score > 0.5}
    whole |= {"intermediate": [], "score_first": score, "score_second": score - 0.1, "forgotten": 0.7, "retained": 0.8}
    return whole | {"figures": figures(forget, retain), "figures_first": [], "warnings": [], **more}


RECORD = {
    "schema": 1, "created": "2026-11-21T08:00:00+00:00", "objective": "harmonic mean", "trials": 3,
    "forget_figure": "forget/probability", "forget_better": "lower", "utility_figure": "retain/probability",
    "budget": {"steps": 9, "rows": 4}, "rows": {"first": {"forget": 5}, "second": {"forget": 4}}, "seed": 0,
    "training": {"max_steps": 9}, "prune": "median", "versions": {},
    "target": {"source": "the <model>", "fingerprint": "sha256:a", "figures": figures(0.9, 0.8), "figures_first": []},
    "reference": {"source": "r", "fingerprint": "sha256:b", "figures": figures(0.2, 0.8), "figures_first": []},
    "methods": [
        {"label": "npo", "parameters": {"beta": 0.1}, "search": {"learning_rate": "1e-06:0.0001:log"}, "finished": 2,
         "pruned": 1, "failed": 0, "best": "npo-0001", "recipe": "best-npo.toml"},
        {"label": "pdu", "parameters": {}, "search": {}, "finished": 0, "pruned": 0, "failed": 1, "best": None,
         "recipe": None},
    ],
    "runs": [
        run("npo", 0, 0.85, 0.79, 0.31), run("npo", 1, 0.3, 0.7, 0.77),
        run("npo", 2, 0, 0, 0, state="pruned", score_first=None, score_second=None, steps=4, figures=[],
            intermediate=[{"step": 2, "value": 0.1}, {"step": 4, "value": 0.05}]),
        run("pdu", 0, 0, 0, 0, state="failed", said="the loss is nan", figures=[], steps=None),
    ],
    "warnings": ["look & see"],
}  # fmt: skip


def test_the_page_shows_the_best_and_every_trial():
    page = tune_page.render(RECORD)
    assert "the &lt;model&gt;" in page and "look &amp; see" in page and "<h1>npo, pdu tuned</h1>" in page
    assert "3 trials of 2 methods each, at most 9 steps a trial." in page and "npo 0.670" in page
    best = {line.name: line for line in tune_page.best_lines(RECORD)}
    assert list(best) == ["target", "reference", "npo", "pdu"]
    assert [v for v, _ in best["npo"].cells[:6]] == ["0.670", "0.770", "0.700", "0.800", "0.300", "0.700"]
    assert best["npo"].cells[4][1] == "0.250 to 0.350" and best["npo"].cells[6] == ("2", "1 pruned")
    assert best["npo"].hint == "npo-0001, learning_rate=0.00123, retain=kl" and best["pdu"].hint == "no trial finished"
    lines = tune_page.lines(RECORD)
    assert [line.name for line in lines] == ["npo-0001", "npo-0000", "npo-0002", "pdu-0000"]
    assert lines[0].cells[0][1] == "on the front" and lines[1].cells[0][1] == ""
    assert lines[2].cells[:2] == (("pruned", ""), ("–", "0.050 when it ended"))
    assert lines[3].cells[0] == ("failed: the loss is nan", "")
    assert "It might" not in page and "it might still have won" in page
    assert "how near the trials come to one is not known" not in page


def test_the_front_has_every_finished_trial_and_both_models():
    figure = front.chart(RECORD, tune_page.names(RECORD))
    root = tree.fromstring(figure.svg)
    words = root.find("{*}title").text if root.find("{*}title") is not None else root.find("title").text
    for name in ("npo-0000: 0.85", "npo-0001: 0.3", "target: 0.9", "reference: 0.2"):
        assert name in words, words
    assert "npo-0002" not in words and "pdu" not in words
    texts = [t.text for t in root.iter() if t.tag.endswith("text")]
    assert {"npo", "target", "reference"} <= set(texts) and "pdu" not in texts


def test_its_files_are_written_and_go_where_there_is_nothing_to_draw(tmp_path):
    tune_page.write_report(RECORD, tmp_path)
    assert {"report.html", "front.svg", "front.png"} == {p.name for p in tmp_path.iterdir()}
    assert tree.parse(tmp_path / "front.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    tune_page.write_report({**RECORD, "runs": []}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert "there is nothing to draw" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("key", [*RECORD, "nothing"])
def test_any_part_may_be_missing(key):
    record = copy.deepcopy({k: v for k, v in RECORD.items() if k != key} if key != "nothing" else {})
    assert "<h1>" in tune_page.render(record)
