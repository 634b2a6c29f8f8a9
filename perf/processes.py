"""Processes × strategies × methods: how far the weights are from those of one process, and whether resuming is exact.

    python -m perf.processes --out results/processes [--work FOLDER] [--only TEXT]

Every method with full weights, with LoRA and with some of the weights (and AdamW, Sophia, a holdout set, dropout, …) trains
a tiny model for four steps on CPUs: in one process, in two and four under DDP, and in two and four shards under FSDP2.  Each
saves a checkpoint after the second step and goes on from it once more.  Then rows of each kind go on on another number of
processes, and from another strategy.  What is done stays in ``--work``: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from expunge import combine, files, record
from expunge.errors import InputError
from expunge.method import build
from expunge.training import curvature, supported
from expunge.training.arguments import optimized

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [p for p in (str(ROOT / "tests"),) if p not in sys.path]

import launch  # noqa: E402
import processes_worker as worker  # noqa: E402

RUNS = (("single", 1), ("ddp", 2), ("ddp", 4), ("fsdp2", 2), ("fsdp2", 4))
# (strategy, processes) that go on -> from whose checkpoints.
CROSSED = {
    ("single", 1): [("ddp", 2), ("fsdp2", 2)],
    ("ddp", 2): [("ddp", 4), ("fsdp2", 4)],
    ("ddp", 4): [("ddp", 2)],
    ("fsdp2", 2): [("fsdp2", 4), ("single", 1)],
    ("fsdp2", 4): [("fsdp2", 2)],
}
FEW = (
    "full/blur_npo", "full/adamw/pdu", "lora/adamw/blur_npo", "full/sophia/gauss_newton", "full/undial",
    "trainable/npo", "full/task_vector+scale=0.5", "full/holdout",
)  # fmt: skip
AT_ONCE = 16  # rows of a launch


def key(strategy: str, processes: int) -> str:
    """What a strategy on so many processes is called in files and in the record."""
    return strategy if processes == 1 else f"{strategy}-{processes}"


def carry_out(names: Sequence[str], work: Path, strategy: str, n: int, begin: Path | None = None) -> list[str]:
    """Train the rows ``names`` that are not done in ``work``; what was said where a launch ended badly."""
    work.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not (work / f"{worker.file_of(name)}.json").exists()]
    problems = []
    for i in range(0, len(missing), AT_ONCE):
        arguments = [strategy, str(work), ",".join(missing[i : i + AT_ONCE]), *([str(begin)] if begin else [])]
        said = launch.several_processes("processes_worker.py", arguments, work, n)
        if not said.startswith("0:"):
            problems.append(f"{key(strategy, n)}: {said}")
    return problems


def compared(names: Iterable[str], work: Path, single: Path) -> dict[str, dict[str, Any]]:
    """Row -> its largest difference of a weight to one process, the share of weights that are further away than 1e-5, and
    whether going on gave the same to the bit; only of rows that are done.
    """
    found = {}
    for name in names:
        own, one = (folder / f"{worker.file_of(name)}.pt" for folder in (work, single))
        if own.exists() and one.exists():
            off = (torch.load(own, weights_only=True) - torch.load(one, weights_only=True)).abs()
            said = json.loads(own.with_suffix(".json").read_text())
            found[name] = {"off": float(off.max()), "further": float((off > 1e-5).float().mean()), **said}
    return found


def under_zero(row: dict[str, Any]) -> str:
    """What DeepSpeed's ZeRO makes of ``row``: "allowed", or the sentence that refuses it."""
    sophia = row.get("sophia", {})
    method = optimized(build(row["method"], row["parameters"]), "sophia" if sophia else None, sophia, {})
    combiner = combine.complete(method.combine)
    try:
        supported.check(method, combiner, lambda: torch.ones(len(method.objectives)), "DEEPSPEED")
        if method.optimizer:
            curvature.check_model(method.optimizer, "DEEPSPEED", [])
    except InputError as error:
        return str(error)
    return "allowed"


def table(work: Path, names: Sequence[str]) -> dict[str, Any]:
    """The record: what is done so far in ``work``."""
    rows = {key(*run): compared(names, work / key(*run), work / "single") for run in RUNS}
    crossed = {
        f"{key(*source)} to {key(*run)}": compared(FEW, work / _crossed(source, run), work / "single")
        for run, sources in CROSSED.items()
        for source in sources
    }
    zero = {name: under_zero(worker.rows()[name]) for name in names}
    return {
        "schema": 1,
        "command": "python -m perf.processes --out results/processes",
        "device": f"cpu, {os.cpu_count()} cores, gloo",
        "steps": worker.STEPS,
        "saved": worker.SAVED,
        "versions": record.versions(),
        "rows": rows,
        "other_processes": crossed,
        "zero": zero,
    }


def _crossed(source: tuple[str, int], run: tuple[str, int]) -> str:
    return f"{key(*source)}-to-{key(*run)}"


def markdown(said: dict[str, Any]) -> str:
    """The record as a page."""
    runs = [key(*run) for run in RUNS[1:]]
    lines = [
        "# Processes, strategies, methods",
        "",
        f"`{said['command']}` on {said['device']}; torch {said['versions']['torch']}, "
        f"transformers {said['versions']['transformers']}, accelerate {said['versions']['accelerate']}.",
        "",
        f"Largest difference of a weight to one process after {said['steps']} steps of a tiny model, the third a short one, "
        "and in brackets the share of weights that are further away than 1e-5, if any. "
        f"`=`: going on from the checkpoint after step {said['saved']} gave the same weights, log and combiner's state to "
        "the bit; `≠`: it did not. One process is compared with itself. ZeRO: what `expunge` allows; none was run. "
        "–: not run yet.",
        "",
        "Sophia divides by a curvature, so a coordinate with next to none goes by its rounding. With dropout other numbers "
        "are drawn on each number of processes.",
        "",
        "| row | one | " + " | ".join(runs) + " | ZeRO |",
        "|---|---|" + "---|" * (len(runs) + 1),
    ]
    for name, zero in said["zero"].items():
        cells = [_cell(said["rows"][run].get(name)) for run in ("single", *runs)]
        lines.append(f"| {name} | {' | '.join(cells)} |{'allowed' if zero == 'allowed' else 'refused'} |")
    lines += ["", "## Largest of each column", "", "| rows | " + " | ".join(runs) + " |", "|---|" + "---|" * len(runs)]
    for kind, chosen in worker.kinds(said["zero"]).items():
        worst = [[c["off"] for name in chosen if (c := said["rows"][run].get(name))] for run in runs]
        lines.append(f"| {kind} | " + " | ".join(f"{max(w):.1e} ({len(w)} rows)" if w else "–" for w in worst) + " |")
    lines += ["", "## On another number of processes", "", "| row | " + " | ".join(said["other_processes"]) + " |"]
    lines += ["|---|" + "---|" * len(said["other_processes"])]
    for name in FEW:
        lines.append(f"| {name} | " + " | ".join(_cell(c.get(name)) for c in said["other_processes"].values()) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    sign = {True: " =", False: " ≠"}.get(found.get("same"), "")  # type: ignore[arg-type]
    share = f" ({found['further']:.2%})" if found["further"] else ""
    return f"{found['off']:.1e}{share}{sign}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a launch ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/processes"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "expunge-processes")
    parser.add_argument("--only", default="", help="rows whose names hold this text")
    chosen = parser.parse_args(arguments)
    names = [name for name in worker.rows() if chosen.only in name]
    work, problems = chosen.work.resolve(), []
    for run in RUNS:
        problems += carry_out(names, work / key(*run), *run)
        write(chosen.out, table(work, names))
    for run, sources in CROSSED.items():
        for source in sources:
            few = [name for name in FEW if name in names]
            problems += carry_out(few, work / _crossed(source, run), *run, work / key(*source))
    write(chosen.out, said := table(work, names))
    print(markdown(said))
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


def write(out: Path, said: dict[str, Any]) -> None:
    """Write the record and its page to the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / "processes.json", said)
    files.replace_text(out / "README.md", markdown(said))


if __name__ == "__main__":
    sys.exit(main())
