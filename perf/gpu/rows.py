"""Rows of a table that are measured one after the other: each is written down at once, and none stops the rest."""

from __future__ import annotations

import gc
import json
import logging
import platform
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from expunge import record

Figures = Mapping[str, Any]
FINAL = ("passed", "out of memory")  # what is not measured again
FAILED, MORE = 1, 75  # exit statuses: a row failed; rows are left


class Differs(Exception):
    """A row's figures are outside of its tolerance."""

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


class Skipped(Exception):
    """A row that cannot be had here, and why."""


@dataclass(frozen=True)
class Row:
    """A name, and what measures it: figures, or an exception."""

    name: str
    measure: Callable[[], Figures]


def outcome(row: Row) -> dict[str, Any]:
    """``{"status", "seconds", "figures" | "reason"}`` of a row: passed, skipped, failed, or out of memory."""
    began = time.perf_counter()
    found: dict[str, Any]
    try:
        found = {"status": "passed", "figures": dict(row.measure())}
    except Skipped as reason:
        found = {"status": "skipped", "reason": str(reason)}
    except Differs as error:
        found = {"status": "failed", "reason": str(error), "figures": dict(error.figures)}
    except torch.OutOfMemoryError as error:
        found = {"status": "out of memory", "reason": _short(str(error))}
    except Exception as error:
        found = {"status": "failed", "reason": _short(f"{type(error).__name__}: {error}"), "where": _where(error)}
    return found | {"seconds": round(time.perf_counter() - began, 3)}


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


def _where(error: Exception) -> list[str]:
    """The last calls before the error, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}: {f.line}" for f in frames]


def about(device: torch.device) -> dict[str, Any]:
    """What the figures depend on: the card, versions, threads."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": str(device),
        "card": card,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "versions": record.versions(),
    }


def chosen(rows: Iterable[Row], only: str | None) -> list[Row]:
    """The rows whose name the regular expression ``only`` is found in; ValueError where that is none."""
    every = list(rows)
    some = [row for row in every if only is None or re.search(only, row.name)]
    if not some:
        raise ValueError(f"no row is called like {only!r}; there are {', '.join(row.name for row in every)}")
    return some


def read(out: Path | None) -> dict[str, Any]:
    """The record in ``out``, empty where there is none yet."""
    return json.loads(out.read_text()) if out and out.exists() else {}


def write(out: Path | None, log: Mapping[str, Any]) -> None:
    """Write the record whole or not at all."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = out.with_name(f".{out.name}.new")
        fresh.write_text(json.dumps(log, indent=1) + "\n")
        fresh.replace(out)


def run(
    rows: Iterable[Row],
    device: torch.device,
    out: Path | None = None,
    *,
    seconds: float = float("inf"),
    line: Callable[[Figures], str] = str,
    **facts: Any,
) -> dict[str, Any]:
    """Measure ``rows`` in order; returns, and after each row writes, ``{…facts, "rows": {name: outcome}}``.

    Rows that passed, or did not fit, in the record ``out`` are not measured again.  After ``seconds`` the rest is noted
    as not reached.
    """
    began, log = time.monotonic(), begun(device, out, facts)
    for row in rows:
        if row.name in log["rows"]:
            continue
        if time.monotonic() - began > seconds:
            log["rows"][row.name] = {
                "status": "not reached",
                "reason": f"{seconds:g} seconds were over",
                "seconds": 0.0,
            }
            continue
        found = log["rows"][row.name] = outcome(row)
        said = line(found["figures"]) if found["status"] == "passed" else found["reason"]
        print(f"{found['status']:8} {found['seconds']:7.2f} s  {row.name:44} {said}", flush=True)
        write(out, log)
    log["seconds"] = round(time.monotonic() - began, 1)
    write(out, log)
    return log


def begun(device: torch.device, out: Path | None, facts: Figures) -> dict[str, Any]:
    """The record in ``out`` without the rows to measure again, or a new one; SystemExit where it is of another card."""
    before, here = read(out), about(device)
    if before and before["about"]["card"] != here["card"]:
        raise SystemExit(
            f"{out} holds figures of {before['about']['card']}, and this is {here['card']}; give another --out"
        )
    done = {name: row for name, row in before.get("rows", {}).items() if row["status"] in FINAL}
    return {"about": here, **facts, "rows": done}


def failures(log: Mapping[str, Any]) -> list[str]:
    """The names of the rows that failed."""
    return [name for name, row in log["rows"].items() if row["status"] == "failed"]


def exit_status(log: Mapping[str, Any], out: Path | None) -> int:
    """1 where a row failed, 75 where rows were not reached (which is said), else 0."""
    left = sum(row["status"] == "not reached" for row in log["rows"].values())
    if left:
        again = f"the same command goes on from {out}" if out else "give --out, and the same command again goes on"
        print(f"out of time: {left} rows were not reached; {again}", flush=True)
    return FAILED if failures(log) else MORE if left else 0


def left(seconds: float) -> float:
    """What is left of ``seconds`` since this process began, imports included."""
    return seconds - (time.time() - psutil.Process().create_time())


def silence() -> None:
    """Libraries say nothing beside the table, and what the imports made is not walked by every collection of garbage."""
    import transformers

    import expunge.cli  # noqa: F401

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    logging.getLogger("expunge").setLevel(logging.ERROR)
    gc.collect()
    gc.freeze()


def device_of(name: str) -> torch.device:
    """The device called ``name``; SystemExit where it is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; say --device cpu to rehearse")
    return torch.device(name)
