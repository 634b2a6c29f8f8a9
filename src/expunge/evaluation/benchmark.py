"""A benchmark as a value: which rows, what is asked of the model, how the answers become figures.  Needs no torch."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from expunge.data.example import Row, to_record
from expunge.data.records import Record, load_records
from expunge.data.sources import load_rows
from expunge.errors import InputError
from expunge.evaluation.metrics.rouge import readable
from expunge.evaluation.probe import Probe
from expunge.evaluation.table import Collected
from expunge.files import PRIVATE, write_lines
from expunge.stats import bootstrap_mean, bounded_mean

ENDINGS = (".json", ".jsonl", ".csv", ".parquet")
Placed = TypeVar("Placed", Row, Record)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Figure:
    """One number: of ``n`` examples, with an interval where it is one of a sample.

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
class DataSet:
    """One of a benchmark's data sets.

    ``hub``: where it is on the Hub, ``owner/name[:config][@split]``, or its https address; ``file``: its path within a
    folder, without ending (``*`` matches any name: then it is several files; ``a|b``: b where there is no a);
    ``optional``: the benchmark can do without it, and says what it leaves out; ``endings``: those of its file;
    ``rows``: how its records become questions and answers to teach or to unlearn, where they are none as they stand.
    """

    name: str
    hub: str
    file: str = ""
    optional: bool = False
    endings: tuple[str, ...] = ENDINGS
    rows: Callable[[Sequence[Record]], list[Row]] | None = None

    def among(self, folder: Path) -> list[Path]:
        """Its files in ``folder``, in order of their names; none if it is not there."""
        patterns = (self.file or self.name).split("|")
        found = (sorted(folder.glob(f"{p}{ending}")) for p in patterns for ending in self.endings)
        return next((files for files in found if files), [])

    @property
    def shown(self) -> str:
        """Its file without ending, as a message names it."""
        return (self.file or self.name).split("|")[0]

    def to_learn(self, places: Iterable[str | Path]) -> list[Row]:
        """Its rows at ``places`` as something to teach or to unlearn; InputError where there are none."""
        if self.rows is None:
            return [row for place in places for row in load_rows(place)]
        made = self.rows([record for place in places for record in load_records(place)])
        if not made:
            raise InputError(f"{self.shown} holds none of the rows of {self.name}")
        return made


@dataclass(frozen=True)
class Data:
    """Where the rows of each data set are: ``data.rows("forget01")``; ``absent``: the optional ones that are not here.

    ``warnings``: what was found in the rows that were read so far and does not keep the others from being asked.
    """

    places: Mapping[str, tuple[str | Path, ...]]
    absent: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list, compare=False)

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def rows(self, name: str) -> list[Row]:
        """The rows of the data set ``name`` as questions and answers, or as texts, without those that are none."""
        try:
            return self._all(name, load_rows)
        except InputError as error:
            try:
                return self.usable(name, self.records(name), _row)
            except InputError:
                raise error from None  # no row is of use, or the file cannot be read at all

    def records(self, name: str) -> list[Record]:
        """The same with all their columns."""
        return self._all(name, load_records)

    def usable(self, name: str, records: Iterable[Record], make: Callable[[Record], Made]) -> list[Made]:
        """What ``make`` gives of each record; one that it refuses is left out and counted among ``warnings``.

        Raises the InputError of the first in a file of which ``make`` refuses every row: that is no odd row.
        """
        made: list[Made] = []
        refused: dict[str, list[InputError]] = {}
        good = set()
        for record in records:
            try:
                made.append(make(record))
                good.add(record.file)
            except InputError as error:
                refused.setdefault(record.file, []).append(error)
        for file, errors in refused.items():
            if file not in good:
                raise errors[0]
        if refused:
            self.leave_out(name, sum(map(len, refused.values())), str(next(iter(refused.values()))[0]))
        return made

    def leave_out(self, name: str, count: int, reason: str) -> None:
        """Count ``count`` rows of ``name`` among ``warnings``, once however often the rows are read."""
        said = f"{count} row(s) of {name} cannot be asked and are left out; the first: {reason}"
        if count and said not in self.warnings:
            self.warnings.append(said)

    def _all(self, name: str, load: Callable[[str | Path], list[Placed]]) -> list[Placed]:
        """What ``load`` finds at each place; where several files share a name, messages name their folders too."""
        places, out = self.places[name], []
        files = [Path(p).name for p in places if isinstance(p, Path)]
        alike = len(set(files)) < len(files)
        for place in places:
            folder = f"{Path(place).parent.name}/" if alike else ""
            try:
                out += [replace(found, where=folder + found.where) for found in load(place)]
            except InputError as error:
                raise InputError(f"{folder}{error}") from error
        return out


@dataclass(frozen=True)
class Benchmark:
    """``sets``: the data it reads; ``probes`` turns them into questions; ``score`` turns what was collected of a model, and
    of the retrained model where there is one, into figures.

    ``chat_template`` and ``max_length`` are how it asks, where the user does not say otherwise.  ``forget``, ``retain``:
    what ``expunge bench --method`` unlearns and protects, named as a ``DataSet``; None where a benchmark does not say.
    ``taught``: what ``--teach`` teaches, where that is not the two together.  ``warn``: what a reader of the figures is to
    be warned of in what was collected.
    """

    name: str
    paper: str
    sets: tuple[DataSet, ...]
    probes: Callable[[Data], list[Probe]]
    score: Callable[[Collected, Collected | None], list[Figure]]
    chat_template: bool = True
    max_length: int = 512
    forget: DataSet | None = None
    retain: DataSet | None = None
    taught: DataSet | None = None
    warn: Callable[[Collected], list[str]] = lambda found: []


def data_of(benchmark: Benchmark, folder: str | Path | None = None) -> Data:
    """Its data: files of ``folder`` (.json, .jsonl, .csv or .parquet), or without one the Hub.

    Raises InputError at once if the folder lacks a file that the benchmark cannot do without.
    """
    if folder is None:
        if missing := [s.name for s in benchmark.sets if not s.hub and not s.optional]:
            raise InputError(f"{benchmark.name} is not on the Hub ({', '.join(missing)}); give a folder with --data")
        return Data(
            {s.name: (s.hub,) for s in benchmark.sets if s.hub}, tuple(s.name for s in benchmark.sets if not s.hub)
        )
    here = Path(folder)
    if not here.is_dir():
        raise InputError(f"there is no folder {here}; it should hold {_files(benchmark.sets)}")
    found = {s.name: tuple(s.among(here)) for s in benchmark.sets}
    for s in benchmark.sets:
        if not found[s.name] and not s.optional:
            others = f" (or {', '.join(s.endings[1:])})" if s.endings[1:] else ""
            raise InputError(f"{here} lacks {s.shown}{s.endings[0]}{others}, which {benchmark.name} reads")
    places = {name: files for name, files in found.items() if files}
    return Data(places, tuple(name for name in found if name not in places))


def to_learn(benchmark: Benchmark, one: DataSet, folder: str | Path | None = None) -> list[Row]:
    """The rows of ``one`` of a benchmark's sets to teach, to forget or to keep; InputError where there are none."""
    return one.to_learn(data_of(replace(benchmark, sets=(one,)), folder).places[one.name])


def write_to_learn(benchmark: Benchmark, out: str | Path, folder: str | Path | None = None) -> dict[str, int]:
    """Write what a benchmark says is to forget, to keep and to teach as ``forget.jsonl``, ``retain.jsonl`` and, where
    that is not the two together, ``taught.jsonl`` into the folder ``out``, for ``expunge run``; returns how many rows
    each has.

    ``folder``: what ``expunge bench --data`` takes; without it the rows come from the Hub.
    """
    kinds = {"forget": benchmark.forget, "retain": benchmark.retain, "taught": benchmark.taught}
    rows = {kind: to_learn(benchmark, one, folder) for kind, one in kinds.items() if one}
    Path(out).mkdir(parents=True, exist_ok=True)
    for kind, found in rows.items():
        write_lines(Path(out) / f"{kind}.jsonl", map(to_record, found), mode=PRIVATE)
    return {kind: len(found) for kind, found in rows.items()}


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


def mean_figure(name: str, values: np.ndarray, part: str, note: str = "") -> Figure:
    """The mean of one value an example, with its interval: of values in [0, 1] one that stays there and has a width."""
    within = bounded_mean(values) if _all_in(values, 0, 1) else bootstrap_mean(values)
    return Figure(name, float(np.mean(values)), len(values), within.low, within.high, part, note)


def difference_figure(name: str, values: np.ndarray, part: str, note: str = "") -> Figure:
    """The mean difference of two models' values of the same examples; of shares it stays in [-1, 1] and has a width."""
    within = bounded_mean(values, -1, 1) if _all_in(values, -1, 1) else bootstrap_mean(values)
    return Figure(name, float(np.mean(values)), len(values), within.low, within.high, part, note)


def count_figure(name: str, values: np.ndarray, part: str, note: str = "") -> Figure:
    """The mean of one value an example that has no bounds, such as a loss or a number of words."""
    within = bootstrap_mean(values)
    return Figure(name, float(np.mean(values)), len(values), within.low, within.high, part, note)


def _all_in(values: np.ndarray, low: float, high: float) -> bool:
    return bool(((np.asarray(values) >= low) & (np.asarray(values) <= high)).all())


def no_overlap(first: Iterable[Row], second: Sequence[Row], names: tuple[str, str]) -> None:
    """Raise InputError if a row stands in both sets; :func:`not_among` leaves such rows out."""
    data = Data({})
    not_among(data, first, second, names)
    if data.warnings:
        raise InputError(f"{data.warnings[0].partition('the first: ')[2]}; the sets must not overlap")


def not_among(data: Data, first: Iterable[Row], second: Sequence[Row], names: tuple[str, str]) -> list[Row]:
    """The rows of ``second`` that do not stand in ``first`` too: a holdout that was trained on is none.

    The others are counted among the warnings; InputError where there is no row left.
    """
    seen = {(json.dumps(r.prompt), r.answer): r.where for r in first}
    where = [seen.get((json.dumps(row.prompt), row.answer)) for row in second]
    shared = [(row, place) for row, place in zip(second, where, strict=True) if place is not None]
    if not shared:
        return list(second)
    row, place = shared[0]
    said = f"{row.where} of {names[1]} also stands in {names[0]} ({place})"
    if len(shared) == len(second):
        raise InputError(f"{said}; the sets must not overlap")
    data.leave_out(names[1], len(shared), said)
    return [row for row, place in zip(second, where, strict=True) if place is None]


def without_words(found: Collected, parts: Iterable[str], how: str) -> list[str]:
    """A warning for each of ``parts`` with right answers that have no word which ROUGE sees; ``how`` they are scored."""
    out = []
    for part in parts:
        expected = [a.expected for a in found.answers if a.part == part]
        if odd := sum(not readable(text) for text in expected):
            out.append(f"{part}: {odd} of {len(expected)} right answers have no word that ROUGE sees (a-z, 0-9); {how}")
    return out


def _row(record: Record) -> Row:
    """One record as a question and answer, or as a text."""
    try:
        (row,) = load_rows([record.values])
    except InputError as error:
        raise InputError(f"{record.where}: {str(error).partition(': ')[2] or error}") from None
    return replace(row, where=record.where)


def to_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Figures as a record holds them; a number that is none becomes null."""
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(f).items()} for f in figures
    ]


def _files(sets: Iterable[DataSet]) -> str:
    return ", ".join(f"{s.shown}{s.endings[0]}" for s in sets if not s.optional)
