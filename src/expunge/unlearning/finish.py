"""The end of a run: its record and its page are written, and what went wrong is raised."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge import __version__, files, record
from expunge.errors import RunFailed
from expunge.unlearning.result import Result


def finish(result: Result, problems: Sequence[str]) -> Result:
    """``result`` with its record written; raises RunFailed for ``problems``, with what was written kept."""
    folder = result.folder
    try:
        written = write(result.record, folder)
    except OSError as error:
        raise RunFailed(
            f"{folder / record.FILE} cannot be written ({files.reason(error)}); the weights are in {folder / 'model'}",
            record=result.record,
            result=result,
        ) from error
    whole = replace(result, record=written)
    if problems:
        raise RunFailed(
            f"the run failed: {'; '.join(problems)} (record: {folder / record.FILE})", record=written, result=whole
        )
    return whole


def write(log: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Stamp ``log`` with versions, write ``run.json`` and ``report.html`` into ``folder``, and return what stands there."""
    from expunge.report import write_report

    log = {
        "schema": record.SCHEMA,
        "expunge": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **log,
        "versions": record.versions(),
        "platform": platform.platform(),
        "peak_memory_bytes": record.peak_memory_bytes(),
    }
    stamped = record.as_written(log, folder)
    write_report(stamped, folder / "report.html")
    record.write(stamped, folder / "run.json")  # last: a folder with run.json is a whole run
    return stamped
