"""Is it right on a GPU?  Tiny models on the device beside the same computation on the CPU; what differs fails.

    python -m perf.gpu.check --device cuda --out check.json
    python -m perf.gpu.check --device cpu --size small --only 'npo'     # a rehearsal

Rows, one a line with its seconds: the kernels over the vocabulary (``kernel/``), the methods' contract
(``contract/``: fp32 and bf16 compute; full weights, LoRA, LoRA on bf16 weights; each form of reference), a killed and
resumed run (``resume/``), the commands (``command/``) and steps that must not wait for the card (``sync/``).  The
tolerances stand in the module of each kind. Needs no network.  The record is written after each row; started again it
goes on with what did not pass.  Exit status: 1 a row failed, 75 rows are left (``--seconds``), 0 all passed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]


def tests_importable() -> None:
    """The tests' tiny models and their plain loop are used here."""
    if (tests := str(ROOT / "tests")) not in sys.path:
        sys.path.insert(0, tests)


def rows(device: torch.device, folder: Path, size: str) -> Iterator[Any]:
    """All rows, the quick and telling ones first."""
    from perf.gpu import commands, contract, kernels, resume, syncs

    yield from kernels.rows(device, size)
    yield from syncs.rows(device)
    yield from resume.rows(device, folder)
    yield from commands.rows(device, folder)
    yield from contract.rows(device)


def said(figures: Any) -> str:
    """A row's figures in a few words."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


def summary(log: dict[str, Any]) -> str:
    """How many rows of each kind passed, and the names and reasons of those that did not."""
    from perf.gpu.rows import failures

    lines = []
    for kind in dict.fromkeys(name.split("/")[0] for name in log["rows"]):
        some = [row for name, row in log["rows"].items() if name.split("/")[0] == kind]
        counts = Counter(row["status"] for row in some)
        seconds = sum(row["seconds"] for row in some)
        lines.append(f"{kind:9} {seconds:7.1f} s  " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    lines += [f"FAILED {name}: {log['rows'][name]['reason']}" for name in failures(log)]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the record; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("large", "small"), default="large", help="of the kernels' inputs")
    parser.add_argument("--only", metavar="REGEX", help="the rows whose name it is found in")
    parser.add_argument("--share", metavar="K/N", help="the K-th of N shares of the rows: several processes at once")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no row that long after the start")
    parser.add_argument("--out", type=Path, help="the record, JSON")
    args = parser.parse_args(arguments)
    tests_importable()
    from perf.gpu.rows import chosen, device_of, exit_status, left, run, silence

    silence()

    device = device_of(args.device)
    part, parts = map(int, (args.share or "1/1").split("/"))
    with tempfile.TemporaryDirectory() as folder:
        some = chosen(rows(device, Path(folder), args.size), args.only)[part - 1 :: parts]
        log = run(some, device, args.out, seconds=left(args.seconds), line=said)
    print(summary(log), flush=True)
    return exit_status(log, args.out)


if __name__ == "__main__":
    sys.exit(main())
