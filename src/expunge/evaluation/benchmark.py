"""A benchmark as a value: its data sets, its questions, and the scoring of the answers.  Needs no torch."""

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
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Figure:
    """One number: of ``n`` examples, with an interval where it is one of a sample.

    ``part`` is the set it was measured on; ``note``: what to know when comparing it.
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
    ``optional``: the benchmark works without it, and reports what it leaves out; ``endings``: those of its file;
    ``rows``: converts its records to questions and answers to teach or to unlearn, if they are not of that form.
    """

    name: str
    hub: str
    file: str = ""
    optional: bool = False
    endings: tuple[str, ...] = ENDINGS
    rows: Callable[[Sequence[Record]], list[Row]] | None = None

    def among(self, folder: Path) -> list[Path]:
        """Its files in ``folder``, in order of their names; empty if there are none."""
        patterns = (self.file or self.name).split("|")
        files_by_ending = (sorted(folder.glob(f"{p}{ending}")) for p in patterns for ending in self.endings)
        return next((files for files in files_by_ending if files), [])

    @property
    def shown(self) -> str:
        """Its file without ending, for messages."""
        return (self.file or self.name).split("|")[0]

    def to_learn(self, paths: Iterable[str | Path]) -> list[Row]:
        """Its rows at ``paths``, to teach or to unlearn; InputError where there are none."""
        if self.rows is None:
            return [row for path in paths for row in load_rows(path)]
        rows = self.rows([record for path in paths for record in load_records(path)])
        if not rows:
            raise InputError(f"{self.shown} holds none of the rows of {self.name}")
        return rows


@dataclass(frozen=True)
class Data:
    """The location of each data set: ``data.rows("forget01")``; ``absent``: the missing optional ones.

    ``warnings``: problems of the rows read so far that do not prevent the others from being asked.
    """

    places: Mapping[str, tuple[str | Path, ...]]
    absent: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list, compare=False)

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def rows(self, name: str) -> list[Row]:
        """The rows of the data set ``name`` as questions and answers, or as texts, without those of another form."""
        try:
            return self._all(name, load_rows)
        except InputError as error:
            try:
                return self.usable(name, self.records(name), _row)
            except InputError:
                raise error from None  # no row is usable, or the file cannot be read at all

    def records(self, name: str) -> list[Record]:
        """As :meth:`rows`, with all columns."""
        return self._all(name, load_records)

    def usable(self, name: str, records: Iterable[Record], parse: Callable[[Record], Parsed]) -> list[Parsed]:
        """``parse(record)`` of each record; one that it refuses is left out and counted among ``warnings``.

        Raises the InputError of the first record of a file if ``parse`` refuses all its records.
        """
        parsed: list[Parsed] = []
        refused: dict[str, list[InputError]] = {}
        good = set()
        for record in records:
            try:
                parsed.append(parse(record))
                good.add(record.file)
            except InputError as error:
                refused.setdefault(record.file, []).append(error)
        for file, errors in refused.items():
            if file not in good:
                raise errors[0]
        if refused:
            self.leave_out(name, sum(map(len, refused.values())), str(next(iter(refused.values()))[0]))
        return parsed

    def leave_out(self, name: str, count: int, reason: str) -> None:
        """Add a warning of ``count`` left-out rows of ``name``, once even if the rows are read several times."""
        message = f"{count} row(s) of {name} cannot be asked and are left out; the first: {reason}"
        if count and message not in self.warnings:
            self.warnings.append(message)

    def _all(self, name: str, load: Callable[[str | Path], list[Placed]]) -> list[Placed]:
        """The rows that ``load`` reads from each source; if several files share a name, messages name their folders too."""
        sources, out = self.places[name], []
        files = [Path(p).name for p in sources if isinstance(p, Path)]
        ambiguous = len(set(files)) < len(files)
        for source in sources:
            folder = f"{Path(source).parent.name}/" if ambiguous else ""
            try:
                out += [replace(row, where=folder + row.where) for row in load(source)]
            except InputError as error:
                raise InputError(f"{folder}{error}") from error
        return out


@dataclass(frozen=True)
class ScoreParts:
    """The parts of a benchmark that the scores are of (:mod:`expunge.evaluation.scores`).

    ``forget``: the rows to forget, their answers scored and, for ROUGE and fluency, asked for; ``holdout``: rows of the same
    kind that no model saw; ``retain``: the rows to keep, the first of these parts that was asked: name rows that were not
    trained on before those that were.
    """

    forget: str = "forget"
    holdout: str = "holdout"
    retain: tuple[str, ...] = ("retain",)


@dataclass(frozen=True)
class Benchmark:
    """``sets``: the data it reads; ``probes`` turns them into questions; ``score`` turns the answers and scores of a
    model, and of the retrained model if there is one, into figures.

    ``chat_template`` and ``max_length`` are the defaults of its prompts.  ``forget``, ``retain``: the data sets that
    ``expunge bench --method`` unlearns and protects; None if the benchmark has none.  ``taught``: the data set that
    ``--teach`` teaches, if not the two together.  ``warn``: warnings about the answers, for readers of the figures.
    ``score_parts``: what memorisation, privacy, utility and their mean are made of; None: the benchmark has no such scores.
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
    warn: Callable[[Collected], list[str]] = lambda collected: []
    score_parts: ScoreParts | None = None


def data_of(benchmark: Benchmark, folder: str | Path | None = None) -> Data:
    """Its data: files of ``folder`` (.json, .jsonl, .csv or .parquet), or without one the Hub.

    Raises InputError if the folder lacks a file that is not optional.
    """
    if folder is None:
        if missing := [s.name for s in benchmark.sets if not s.hub and not s.optional]:
            raise InputError(f"{benchmark.name} is not on the Hub ({', '.join(missing)}); give a folder with --data")
        return Data(
            {s.name: (s.hub,) for s in benchmark.sets if s.hub}, tuple(s.name for s in benchmark.sets if not s.hub)
        )
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"there is no folder {path}; it should hold {_files(benchmark.sets)}")
    files_by_set = {s.name: tuple(s.among(path)) for s in benchmark.sets}
    for s in benchmark.sets:
        if not files_by_set[s.name] and not s.optional:
            alternatives = f" (or {', '.join(s.endings[1:])})" if s.endings[1:] else ""
            raise InputError(f"{path} lacks {s.shown}{s.endings[0]}{alternatives}, which {benchmark.name} reads")
    files_by_name = {name: files for name, files in files_by_set.items() if files}
    return Data(files_by_name, tuple(name for name in files_by_set if name not in files_by_name))


def to_learn(benchmark: Benchmark, data_set: DataSet, folder: str | Path | None = None) -> list[Row]:
    """The rows of one of a benchmark's sets, to teach, to forget or to retain; InputError where there are none."""
    return data_set.to_learn(data_of(replace(benchmark, sets=(data_set,)), folder).places[data_set.name])


def write_to_learn(benchmark: Benchmark, out: str | Path, folder: str | Path | None = None) -> dict[str, int]:
    """Write a benchmark's rows to forget, to retain and, if they are not the two together, to teach as ``forget.jsonl``,
    ``retain.jsonl`` and ``taught.jsonl`` into the folder ``out``, for ``expunge run``; returns the number of rows of
    each.

    ``folder``: what ``expunge bench --data`` takes; without it the rows come from the Hub.
    """
    sets = {"forget": benchmark.forget, "retain": benchmark.retain, "taught": benchmark.taught}
    rows = {name: to_learn(benchmark, data_set, folder) for name, data_set in sets.items() if data_set}
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, set_rows in rows.items():
        write_lines(Path(out) / f"{name}.jsonl", map(to_record, set_rows), mode=PRIVATE)
    return {name: len(set_rows) for name, set_rows in rows.items()}


def find(name: str, table: Mapping[str, Benchmark]) -> Benchmark:
    """The benchmark ``name`` of ``table``; InputError, with the nearest name, if there is none."""
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=1)
    hint = f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(table)}"
    raise InputError(f"there is no benchmark {name!r}{hint}")


def texts(row: Row) -> dict[str, str]:
    """The texts that are scored after a row's prompt: its answer, its paraphrase if it has one, its wrong answers."""
    out = {"answer": row.answer}
    if row.paraphrase:
        out["paraphrase"] = row.paraphrase
    return out | {f"wrong{i}": text for i, text in enumerate(row.perturbed)}


def mean_figure(name: str, values: np.ndarray, part: str, note: str = "") -> Figure:
    """The mean of one value an example, with its interval: of values in [0, 1] one that stays there and has a width."""
    interval = bounded_mean(values) if _all_in(values, 0, 1) else bootstrap_mean(values)
    return Figure(name, float(np.mean(values)), len(values), interval.low, interval.high, part, note)


def difference_figure(name: str, values: np.ndarray, part: str, note: str = "") -> Figure:
    """The mean difference of two models' values of the same examples; of shares it stays in [-1, 1] and has a width."""
    interval = bounded_mean(values, -1, 1) if _all_in(values, -1, 1) else bootstrap_mean(values)
    return Figure(name, float(np.mean(values)), len(values), interval.low, interval.high, part, note)


def count_figure(name: str, values: np.ndarray, part: str, note: str = "") -> Figure:
    """The mean of one value an example that has no bounds, such as a loss or a number of words."""
    interval = bootstrap_mean(values)
    return Figure(name, float(np.mean(values)), len(values), interval.low, interval.high, part, note)


def _all_in(values: np.ndarray, low: float, high: float) -> bool:
    return bool(((np.asarray(values) >= low) & (np.asarray(values) <= high)).all())


def no_overlap(first: Iterable[Row], second: Sequence[Row], names: tuple[str, str]) -> None:
    """Raise InputError if a row is in both sets; :func:`not_among` leaves such rows out."""
    data = Data({})
    not_among(data, first, second, names)
    if data.warnings:
        raise InputError(f"{data.warnings[0].partition('the first: ')[2]}; the sets must not overlap")


def not_among(data: Data, first: Iterable[Row], second: Sequence[Row], names: tuple[str, str]) -> list[Row]:
    """The rows of ``second`` that are not in ``first``: a holdout must not have been trained on.

    The others are counted among the warnings; InputError where there is no row left.
    """
    places_in_first = {(json.dumps(r.prompt), r.answer): r.where for r in first}
    places = [places_in_first.get((json.dumps(row.prompt), row.answer)) for row in second]
    shared = [(row, place) for row, place in zip(second, places, strict=True) if place is not None]
    if not shared:
        return list(second)
    row, place = shared[0]
    message = f"{row.where} of {names[1]} also stands in {names[0]} ({place})"
    if len(shared) == len(second):
        raise InputError(f"{message}; the sets must not overlap")
    data.leave_out(names[1], len(shared), message)
    return [row for row, place in zip(second, places, strict=True) if place is None]


def without_words(collected: Collected, parts: Iterable[str], how: str) -> list[str]:
    """A warning for each of ``parts`` with right answers without a word that ROUGE sees; ``how``: how they are scored."""
    warnings = []
    for part in parts:
        expected = [a.expected for a in collected.answers if a.part == part]
        if unreadable := sum(not readable(text) for text in expected):
            warnings.append(
                f"{part}: {unreadable} of {len(expected)} right answers have no word that ROUGE sees (a-z, 0-9); {how}"
            )
    return warnings


def _row(record: Record) -> Row:
    """One record as a question and answer, or as a text."""
    try:
        (row,) = load_rows([record.values])
    except InputError as error:
        raise InputError(f"{record.where}: {str(error).partition(': ')[2] or error}") from None
    return replace(row, where=record.where)


def to_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Figures for a record; NaN and infinities become null."""
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(f).items()} for f in figures
    ]


def _files(sets: Iterable[DataSet]) -> str:
    return ", ".join(f"{s.shown}{s.endings[0]}" for s in sets if not s.optional)
