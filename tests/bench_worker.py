"""A benchmark of five rows, run twice by each rank of a launch; each rank notes what it did."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

import tiny
import tiny_tokenizer
import torch

from expunge import models

OUTS = ("two", "again")
ANSWER_TOKENS = 6  # of an answer whose fluency is measured
RUN = [
    "run",
    "--model",
    "model",
    "--forget",
    "data/rows.json",
    "--retain",
    "retain.json",
    "--method",
    "npo",
    "max_steps=3",
]
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
    kept = [{"question": f"Who is {n}?", "answer": f"{n} is a painter{'!' * i}"} for i, n in enumerate("ABCDEFG")]
    (place / "retain.json").write_text(json.dumps(kept))
    (place / "ports.json").write_text(json.dumps([free_port() for _ in (*OUTS, "run", "broken")]))


def break_saving() -> None:
    """No folder takes weights any more."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    models.save = full  # type: ignore[assignment]


def run(place: Path, rank: str) -> None:
    """Bench in this rank once for each of ``OUTS``, and unlearn twice, the second time in vain; ``OUT-RANK`` says what was
    done, ``stdout-OUT-RANK`` and ``stderr-OUT-RANK`` what was printed, ``code-OUT-RANK`` is the exit code.
    """
    from accelerate.state import AcceleratorState
    from conftest import Blank

    from expunge import files
    from expunge.cli import app
    from expunge.evaluation import table
    from expunge.evaluation.collect import cached as asking
    from expunge.evaluation.probe import Ask
    from expunge.report import bench_page
    from expunge.report.draw import curves
    from expunge.unlearning import fluency

    curves._drawn = lambda *_: Blank()  # type: ignore[assignment,return-value]
    fluency.ANSWER = Ask(ANSWER_TOKENS)
    os.chdir(place)
    os.environ["EXPUNGE_CACHE"] = str(place / "cache")

    def noted(module: Any, name: str) -> None:
        whole = getattr(module, name)

        def note(*a: Any, **k: Any) -> Any:
            with open(f"{out}-{rank}", "a") as file:
                print(name, file=file)
            return whole(*a, **k)

        setattr(module, name, note)

    for module, name in (
        (asking, "collect"),
        (table, "write"),
        (files, "replace_text"),
        (bench_page, "replace_text"),
    ):
        noted(module, name)
    commands = [["bench", "own.py", "--model", "model", "--data", "data", "--out", out] for out in OUTS]
    commands += [[*RUN, "--out", "run"], [*RUN, "--out", "broken"]]
    for command, port in zip(commands, json.loads(Path("ports.json").read_text()), strict=True):
        out = command[-1]
        os.environ["MASTER_PORT"] = str(port)
        AcceleratorState._reset_state(reset_partial_state=True)  # the command ends the group of processes
        if out == "broken":
            break_saving()
        with (
            open(f"stdout-{out}-{rank}", "w") as stdout,
            open(f"stderr-{out}-{rank}", "w") as stderr,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            code = app(command, standalone_mode=False)
        Path(f"code-{out}-{rank}").write_text(str(code))
        assert not torch.distributed.is_initialized()
