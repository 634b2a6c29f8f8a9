"""``bench``, ``reveal``, ``release`` and ``guard`` once each on a device, beside the same commands on the CPU.

Figures of trained and scored models differ from the CPU's by at most 0.001, relative where they are above 1.  What a
model draws may go another way where two probabilities meet, so of ``reveal`` the counts of the search are compared,
of ``guard`` what it answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from typer.testing import CliRunner

from expunge.cli import app
from expunge.data.example import Row as DataRow
from expunge.reveal import run as reveal_run
from perf.gpu import place
from perf.gpu.rows import Differs, Figures, Row

CLOSE = 1e-3
SEARCH = (
    "arms=8", "rounds=2", "queries=2", "initial=1", "responses=3", "best=1", "harvest=3", "neutral=8", "max_new_tokens=24",
    "instruction_tokens=24", "shortest=1", "max_perplexity=1e9", "threshold=0.1", "top_p=1.0",
)  # fmt: skip
# Plain steps in fp32: AdamW makes a step of the rounding of a gradient that is 0.
STEPS = ("max_steps=3", "optim=sgd", "learning_rate=0.1", "bf16=false", "disable_tqdm=true")
Said = dict[str, Any]


def rows(device: torch.device, folder: Path) -> Iterator[Row]:
    """``command/NAME``."""
    for name in COMMANDS:
        yield Row(f"command/{name}", partial(compared, name, device, folder))


def called(*args: object) -> str:
    """What ``expunge ARGS`` printed; RuntimeError where it failed, KeyboardInterrupt where a signal ended it."""
    done = CliRunner().invoke(app, list(map(str, args)))
    if done.exit_code > 128:
        raise KeyboardInterrupt(f"signal {done.exit_code - 128}")  # of this process: the check ends too
    if done.exit_code:
        said = done.output.strip() or repr(done.exception)
        raise RuntimeError(f"expunge {args[0]} ended with {done.exit_code}: {said[-300:]}")
    return done.output


def _training(device: torch.device) -> tuple[str, ...]:
    return (*STEPS, "use_cpu=true") if device.type == "cpu" else STEPS


def _rows_of(here: Path) -> tuple[object, ...]:
    return ("--model", here / "model", "--forget", here / "forget.jsonl", "--retain", here / "retain.jsonl")


def run(device: torch.device, here: Path, out: Path) -> Said:
    """Figures after ``expunge run``, full weights."""
    called("run", *_rows_of(here), "--method", "npo", "--device", device.type, "--out", out, *_training(device))
    return _flat(json.loads((out / "run.json").read_text())["after"])


def bench(device: torch.device, here: Path, out: Path) -> Said:
    """All figures of TOFU before and after unlearning."""
    method = ("--method", "npo", "-p", "beta=0.2")
    model = ("--model", here / "model", "--data", here / "tofu", "--device", device.type)
    called("bench", "tofu/forget01", *model, "--limit", 2, "--out", out, *method, *_training(device))
    said = json.loads((out / "figures.json").read_text())
    parts = {"": said["figures"], **{f"{who}/": figures for who, figures in said["beside"].items()}}
    return {f"{who}{f['part']}/{f['name']}": f["value"] for who, figures in parts.items() for f in figures}


def release(device: torch.device, here: Path, out: Path) -> Said:
    """Figures of the steps of a release."""
    own = ("--steps", 2, "--utility-budget", "none", "lora.r=2")
    called("release", *_rows_of(here), "--device", device.type, "--out", out, *own, *_training(device))
    steps = json.loads((out / "run.json").read_text())["release"]["trajectory"]
    return {f"{k}/{name}": value for k, step in enumerate(steps) for name, value in _flat(step["figures"]).items()}


def reveal(device: torch.device, here: Path, out: Path) -> Said:
    """How often the model was asked in a search, and that something came of it."""
    neutral = [DataRow(({"role": "user", "content": f"q {i}"},), f"answer {i}") for i in range(8)]
    own = ("--topic", "Ada", "--scorer", f"{here / 'own.py'}:length", *SEARCH)
    with mock.patch.object(reveal_run.generate, "neutral_rows", return_value=neutral):  # it cannot write any yet
        called("reveal", "--model", here / "model", "--device", device.type, "--out", out, *own)
    said = json.loads((out / "reveal.json").read_text())
    return {"queries": said["queries"], "revealed something": float(said["revealed"] > 0)}


def guard(device: torch.device, here: Path, out: Path) -> Said:
    """What a guarded model answers to a question about a target, and in how many calls."""
    own = ("--device", device.type, "--max-tokens", 4, "--agent-tokens", 8, "--retries", 0, "--k", 2, "--j", 1)
    question = ("ask", "Where does Ada live?", "--model", here / "model", "--targets", here / "targets.txt")
    said = json.loads(called("guard", *question, *own, "--json"))
    return {"calls": said["calls"], "refused": float(said["outcome"] == "refused")}


COMMANDS: Mapping[str, Callable[[torch.device, Path, Path], Said]] = {
    "run": run, "bench": bench, "release": release, "reveal": reveal, "guard": guard,
}  # fmt: skip


def _flat(figures: Mapping[str, Any]) -> Said:
    return {
        f"{part}/{name}": v for part, some in figures.items() for name, v in some.items() if isinstance(v, int | float)
    }


def compared(name: str, device: torch.device, folder: Path) -> Figures:
    """A command on ``device`` and on the CPU; Differs where their figures are not alike."""
    here = place.made(folder / "place")
    found = []
    for label, where in (("there", device), ("cpu", torch.device("cpu"))):
        with place.own_cache(folder / f"cache-{label}"):
            found.append(COMMANDS[name](where, here, folder / f"{name}-{label}"))
    ours, theirs = found
    if ours.keys() != theirs.keys() or not ours:
        raise Differs(f"other figures than on the CPU: {', '.join(sorted(ours.keys() ^ theirs.keys()))}", ours)
    off = {
        k: abs(ours[k] - theirs[k]) / max(1.0, abs(theirs[k]))
        for k in ours
        if ours[k] is not None and theirs[k] is not None
    }
    worst = max(off, key=lambda k: off[k])
    if not off[worst] <= CLOSE:
        raise Differs(f"{worst} is {ours[worst]:.6g}, and {theirs[worst]:.6g} on the CPU", ours)
    return {"figures": len(off), "worst": worst, "off": off[worst]}
