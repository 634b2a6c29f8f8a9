"""A benchmark as a value: which rows, what is asked of the model, how the answers become figures.  Needs no torch."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge.data.example import Row
from expunge.data.sources import load_rows
from expunge.errors import InputError
from expunge.evaluation.probe import Probe
from expunge.evaluation.table import Collected

Rows = Callable[[str], list[Row]]  # the name of one of the benchmark's data sets -> its rows
ENDINGS = (".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Figure:
    """One number: of ``n`` examples, with a bootstrap interval where it is one of a sample.

    ``part`` is the set it was measured on; ``note`` says what a reader has to know to compare it.
    """

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    part: str = ""
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """``sets``: the data sets it reads, by name, in the repository ``home`` on the Hub or as files of a folder.

    ``probes`` turns them into questions; ``score`` turns what was collected of a model, and of the retrained model where
    there is one, into figures.
    """

    name: str
    paper: str
    home: str
    sets: tuple[str, ...]
    probes: Callable[[Rows], list[Probe]]
    score: Callable[[Collected, Collected | None], list[Figure]]


def rows_of(benchmark: Benchmark, folder: str | Path | None = None) -> Rows:
    """Where its rows come from: files ``<set>.json`` (or .jsonl, .csv, .parquet) of ``folder``, else the Hub.

    Raises InputError at once if the folder lacks one of them.
    """
    if folder is None:
        return lambda name: load_rows(f"{benchmark.home}:{name}")
    here = Path(folder)
    if not here.is_dir():
        raise InputError(f"there is no folder {here}; it should hold {_files(benchmark.sets)}")
    files: dict[str, Path] = {}
    for name in benchmark.sets:
        found = next((f for e in ENDINGS if (f := here / f"{name}{e}").is_file()), None)
        if found is None:
            raise InputError(f"{here} lacks {name}.json (or {', '.join(ENDINGS[1:])}), which {benchmark.name} reads")
        files[name] = found
    return lambda name: load_rows(files[name])


def find(name: str, table: Mapping[str, Benchmark]) -> Benchmark:
    """The benchmark ``name`` of ``table``; a name that is none gets the nearest one suggested."""
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=1)
    hint = f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(table)}"
    raise InputError(f"there is no benchmark {name!r}{hint}")


def texts(row: Row) -> dict[str, str]:
    """What is scored after a row's prompt: its answer, its paraphrase if it has one, its wrong answers."""
    out = {"answer": row.answer}
    if row.paraphrase:
        out["paraphrase"] = row.paraphrase
    return out | {f"wrong{i}": text for i, text in enumerate(row.perturbed)}


def no_overlap(first: Iterable[Row], second: Iterable[Row], names: tuple[str, str]) -> None:
    """Raise InputError if a row stands in both sets: a holdout that was trained on is none."""
    seen = {(json.dumps(r.prompt), r.answer): r.where for r in first}
    for row in second:
        where = seen.get((json.dumps(row.prompt), row.answer))
        if where is not None:
            raise InputError(
                f"{row.where} of {names[1]} also stands in {names[0]} ({where}); the sets must not overlap"
            )


def to_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Figures as a record holds them; a number that is none becomes null."""
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(f).items()} for f in figures
    ]


def _files(names: Iterable[str]) -> str:
    return ", ".join(f"{n}.json" for n in names)
