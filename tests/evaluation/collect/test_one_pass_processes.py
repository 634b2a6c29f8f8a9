"""``expunge bench`` under a launcher with two processes gives what one gives, asks nothing twice, and writes once."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from launch import free_port, two_processes

from expunge.benchmarks import named
from expunge.evaluation import table
from expunge.evaluation.evaluate import evaluate, read

OWN = """
from expunge.evaluation.benchmark import Benchmark, DataSet, mean_figure
from expunge.evaluation.metrics import probability
from expunge.evaluation.probe import Ask, Probe
from expunge.evaluation.rouge import rouge
def probes(data):
    return [Probe("p", i, r, {"answer": r.answer, "wrong0": "nowhere"}, Ask(5)) for i, r in enumerate(data.rows("rows"))]
def score(found, retrained=None):
    said = found.generated("p")
    return [mean_figure("probability", probability(found.mean_logp("p")), "p"),
            mean_figure("rouge", rouge([a.expected for a in said], [a.text for a in said]), "p")]
BENCHMARK = Benchmark("own", "", (DataSet("rows", ""),), probes, score)
"""

# what a process does for each OUT is noted in a file of its own; the command line runs as it is
WORKER = """
import os, sys
from accelerate.state import AcceleratorState
from expunge import files
from expunge.cli import app
from expunge.evaluation import table
from expunge.evaluation.collect import cached as asking
def noted(module, name):
    whole = getattr(module, name)
    def note(*a, **k):
        with open(f"{out}-{os.environ['RANK']}", "a") as file:
            print(name, file=file)
        return whole(*a, **k)
    setattr(module, name, note)
for module, name in ((asking, "collect"), (table, "write"), (files, "replace_text")):
    noted(module, name)
for out, port in zip(sys.argv[1::2], sys.argv[2::2]):
    os.environ["MASTER_PORT"] = port
    AcceleratorState._reset_state(reset_partial_state=True)  # the command closes the group of processes at its end
    app(["bench", "own.py", "--model", "model", "--data", "data", "--out", out], standalone_mode=False)
"""


@pytest.fixture
def place(workplace, monkeypatch):
    monkeypatch.setenv("EXPUNGE_CACHE", str(workplace / "cache"))
    (workplace / "own.py").write_text(OWN)
    (workplace / "worker.py").write_text(WORKER)
    (workplace / "data").mkdir()
    rows = [{"question": f"Where is {n}?", "answer": f"{n} is far away{'!' * i}"} for i, n in enumerate("ABCDE")]
    (workplace / "data" / "rows.json").write_text(json.dumps(rows))
    return workplace


def launch(place, *outs):
    """Two processes that bench once for each of ``outs``; what each did, by out."""
    ended = two_processes(["worker.py", *(word for out in outs for word in (out, str(free_port())))], place)
    for status, _, errors in ended:
        assert status == 0, errors[-3000:]
    (_, table_of_figures, _), (_, nothing, _) = ended
    assert table_of_figures.count("probability") == len(outs) and nothing == ""
    notes = [[place / f"{out}-{rank}" for rank in "01"] for out in outs]
    return [[file.read_text().split() if file.exists() else [] for file in files] for files in notes]


def test_two_processes_give_what_one_gives(place, monkeypatch):
    first, again = launch(place, "two", "again")
    figures_and_page = ["replace_text", "replace_text"]
    assert first == [["collect", "write", "write", *figures_and_page], ["collect"]]
    assert again == [["write", *figures_and_page], []]  # from the cache
    assert read(place / "two")["figures"] == read(place / "again")["figures"]

    monkeypatch.setenv("EXPUNGE_CACHE", str(place / "another"))
    one = evaluate(named("own.py"), "model", "one", data="data")
    for f, g in zip(one, read(place / "two")["figures"], strict=True):
        assert (f.part, f.name, f.n) == (g["part"], g["name"], g["n"]) and f.n == 5
        assert [g["value"], g["low"], g["high"]] == pytest.approx([f.value, f.low, f.high], rel=1e-5)
    found, whole = table.read(place / "two" / "scores"), table.read("one/scores")
    assert Counter((s.part, s.index, s.variant) for s in found.scores) == Counter(
        ("p", i, variant) for i in range(5) for variant in ("answer", "wrong0")
    )
    assert sorted(found.answers, key=lambda a: a.index) == sorted(whole.answers, key=lambda a: a.index)
    assert len(found.answers) == 5
