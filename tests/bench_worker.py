"""A benchmark of five rows, run twice by each rank of a launch; each rank notes what it did."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import tiny
import tiny_tokenizer

OUTS = ("two", "again")
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


def prepare(place: Path, free_port: Any) -> None:
    """Fill the empty folder ``place``: ``model/``, ``data/``, the benchmark ``own.py``, and a port for each of ``OUTS``."""
    tokenizer = tiny_tokenizer.make()
    model = tiny.model(vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    (place / "own.py").write_text(OWN)
    (place / "data").mkdir()
    rows = [{"question": f"Where is {n}?", "answer": f"{n} is far away{'!' * i}"} for i, n in enumerate("ABCDE")]
    (place / "data" / "rows.json").write_text(json.dumps(rows))
    (place / "ports.json").write_text(json.dumps([free_port() for _ in OUTS]))


def run(place: Path, rank: str) -> None:
    """Bench in this rank once for each of ``OUTS``; ``OUT-RANK`` says what was done, ``stdout-RANK`` what was printed."""
    from accelerate.state import AcceleratorState

    from expunge import files
    from expunge.cli import app
    from expunge.evaluation import table
    from expunge.evaluation.collect import cached as asking

    os.chdir(place)
    os.environ["EXPUNGE_CACHE"] = str(place / "cache")

    def noted(module: Any, name: str) -> None:
        whole = getattr(module, name)

        def note(*a: Any, **k: Any) -> Any:
            with open(f"{out}-{rank}", "a") as file:
                print(name, file=file)
            return whole(*a, **k)

        setattr(module, name, note)

    for module, name in ((asking, "collect"), (table, "write"), (files, "replace_text")):
        noted(module, name)
    with open(f"stdout-{rank}", "w") as stdout, contextlib.redirect_stdout(stdout):
        for out, port in zip(OUTS, json.loads(Path("ports.json").read_text()), strict=True):
            os.environ["MASTER_PORT"] = str(port)
            AcceleratorState._reset_state(
                reset_partial_state=True
            )  # the command closes the group of processes at its end
            app(["bench", "own.py", "--model", "model", "--data", "data", "--out", out], standalone_mode=False)
