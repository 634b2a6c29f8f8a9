"""``expunge bench`` under a launcher with two processes gives what one gives, asks nothing twice, and writes once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import expunge
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

# what a process does is noted in a file of its own, then the command line runs as it is
WORKER = """
import os, sys
from expunge import record
from expunge.cli import app
from expunge.evaluation import table
from expunge.evaluation.collect import cached as asking
def noted(module, name):
    whole = getattr(module, name)
    def note(*a, **k):
        with open(f"did-{os.environ['RANK']}", "a") as file:
            print(name, file=file)
        return whole(*a, **k)
    setattr(module, name, note)
for module, name in ((asking, "collect"), (table, "write"), (record, "replace_text")):
    noted(module, name)
app()
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


def launch(place, out):
    """Two processes with what ``torchrun`` gives them to find each other (on a CPU, ``accelerate launch`` needs MPI for
    two); returns what each did."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "worker.py", "bench", "own.py", "--model", "model", "--data", "data", "--out", out]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": str(Path(expunge.__file__).parents[1]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            command,
            cwd=place,
            env={**env, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        ended = [one.communicate(timeout=240) for one in running]
    finally:
        for one in running:
            one.kill()
    for one, (_, errors) in zip(running, ended, strict=True):
        assert one.returncode == 0, errors[-3000:]
    (table_of_figures, _), (nothing, _) = ended
    assert "probability" in table_of_figures and nothing == ""
    notes = [place / f"did-{rank}" for rank in "01"]
    did = [file.read_text().split() if file.exists() else [] for file in notes]
    for file in notes:
        file.unlink(missing_ok=True)
    return did


def test_two_processes_give_what_one_gives(place, monkeypatch):
    first = launch(place, "two")
    again = launch(place, "again")
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
