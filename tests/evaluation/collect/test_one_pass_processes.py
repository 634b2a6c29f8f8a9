"""``expunge bench`` under a launcher with two processes gives what one gives, asks nothing twice, and writes once."""

from __future__ import annotations

from collections import Counter

import pytest
from bench_worker import OUTS
from launch import launched

from expunge.benchmarks import named
from expunge.evaluation import table
from expunge.evaluation.evaluate import evaluate, read


def test_two_processes_give_what_one_gives(tmp_path_factory, tmp_path, monkeypatch):
    folder = launched(tmp_path_factory)
    place = folder / "bench"
    assert (place / OUTS[-1] / "figures.json").exists(), (folder / "said").read_text()
    notes = [[place / f"{out}-{rank}" for rank in "01"] for out in OUTS]
    first, again = [[file.read_text().split() if file.exists() else [] for file in files] for files in notes]
    figures_and_page = ["replace_text", "replace_text"]
    assert first == [
        ["collect", "replace_text", "write", "write", *figures_and_page],
        ["collect"],
    ]  # of the cache: whose, then what
    assert again == [["write", *figures_and_page], []]  # from the cache
    for out in OUTS:
        said = [(place / f"stdout-{out}-{rank}").read_text() for rank in "01"]
        assert said[0].count("probability") == 1 and said[1] == ""
    assert read(place / "two")["figures"] == read(place / "again")["figures"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    one = evaluate(named(str(place / "own.py")), str(place / "model"), "one", data=place / "data")
    for f, g in zip(one, read(place / "two")["figures"], strict=True):
        assert (f.part, f.name, f.n) == (g["part"], g["name"], g["n"]) and f.n == 5
        assert [g["value"], g["low"], g["high"]] == pytest.approx([f.value, f.low, f.high], rel=1e-5)
    found, whole = table.read(place / "two" / "scores"), table.read("one/scores")
    assert Counter((s.part, s.index, s.variant) for s in found.scores) == Counter(
        ("p", i, variant) for i in range(5) for variant in ("answer", "wrong0")
    )
    assert sorted(found.answers, key=lambda a: a.index) == sorted(whole.answers, key=lambda a: a.index)
    assert len(found.answers) == 5
