"""The results of one pass over a model, one row a text: the only input of metrics.  Needs no torch.

Two kinds of rows.  A *scored* text: the model's log-probability of each token of a given answer.  A *generated* text:
the model's own answer.  Both name their ``part`` (``forget``, ``retain``, …), the row's number in it, and a ``variant``
(``answer``, ``paraphrase``, ``wrong0``, ``option2``, …).  On disk they are ``scores.parquet`` and ``answers.parquet``,
written whole or not at all; they quote the data, so they are readable by their owner alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.errors import InputError
from expunge.files import PRIVATE, private_folder, replacing_file

SCORES, ANSWERS = "scores.parquet", "answers.parquet"


@dataclass(frozen=True)
class Scored:
    """An answer of T labelled tokens under the model.

    ``logp`` (T,) log-probability of each token; ``vocab_mean``, ``vocab_std`` (T,) mean and deviation of the
    log-probability over the vocabulary there (Min-K++); ``hit`` (T,) whether the token is the most likely one;
    ``ends`` whether the last token is the end of turn; ``grad_norm`` of the loss, if it was measured; ``note`` the
    probe's.
    """

    part: str
    index: int
    variant: str
    text: str
    logp: NDArray[np.float32]
    vocab_mean: NDArray[np.float32]
    vocab_std: NDArray[np.float32]
    hit: NDArray[np.bool_]
    ends: bool = True
    grad_norm: float | None = None
    note: str = ""

    @property
    def mean_logp(self) -> float:
        """Mean token log-probability."""
        return float(self.logp.mean(dtype=np.float64))


@dataclass(frozen=True)
class Generated:
    """The model's greedy answer; ``expected``: the right one."""

    part: str
    index: int
    variant: str
    expected: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Collected:
    """All scores and answers of one model on one benchmark."""

    scores: tuple[Scored, ...]
    answers: tuple[Generated, ...]

    @cached_property
    def _by_place(self) -> dict[tuple[str, str], dict[int, Scored]]:
        out: dict[tuple[str, str], dict[int, Scored]] = {}
        for s in self.scores:
            out.setdefault((s.part, s.variant), {})[s.index] = s
        return out

    def scored(self, part: str, variant: str = "answer") -> list[Scored]:
        """The scored texts of one part and variant, by row number."""
        rows = self._by_place.get((part, variant))
        if rows is None:
            raise InputError(f"nothing was collected for {variant!r} of {part!r}; found {self._available()}")
        return [rows[i] for i in sorted(rows)]

    def variants(self, part: str, stem: str) -> list[str]:
        """The variants of ``part`` that are ``stem`` and a number, in order of the number."""
        names = [v for p, v in self._by_place if p == part and v.startswith(stem) and v[len(stem) :].isdigit()]
        return sorted(names, key=lambda v: int(v[len(stem) :]))

    def mean_logp(self, part: str, variant: str = "answer") -> NDArray[np.float64]:
        """(n,) mean token log-probability of each text of ``scored``."""
        return np.array([s.mean_logp for s in self.scored(part, variant)])

    def mean_logps(self, part: str, stem: str) -> NDArray[np.float64]:
        """(n, k) :meth:`mean_logp` of the k numbered variants of ``part``."""
        names = self.variants(part, stem)
        if not names:
            raise InputError(f"nothing was collected for {stem}0, {stem}1, … of {part!r}; found {self._available()}")
        return np.stack([self.mean_logp(part, v) for v in names], axis=1)

    def generated(self, part: str, variant: str = "answer") -> list[Generated]:
        """The answers of one part and variant, by row number."""
        rows = {g.index: g for g in self.answers if (g.part, g.variant) == (part, variant)}
        if not rows:
            raise InputError(f"nothing was generated for {variant!r} of {part!r}")
        return [rows[i] for i in sorted(rows)]

    def _available(self) -> str:
        return ", ".join(f"{p}/{v}" for p, v in self._by_place) or "nothing"


def join(tables: Iterable[Collected]) -> Collected:
    """One table from those of several processes."""
    parts = list(tables)
    return Collected(tuple(s for t in parts for s in t.scores), tuple(a for t in parts for a in t.answers))


def write(table: Collected, folder: str | os.PathLike[str]) -> Path:
    """Write both files into ``folder``, each in one piece, and return it; for their owner alone: they quote the data."""
    out = private_folder(Path(folder))
    _write(out / SCORES, table.scores, Scored)
    _write(out / ANSWERS, table.answers, Generated)
    return out


def read(folder: str | os.PathLike[str]) -> Collected:
    """The table that :func:`write` wrote."""
    return Collected(
        tuple(
            Scored(
                **{
                    **row,
                    "logp": np.asarray(row["logp"], np.float32),
                    "vocab_mean": np.asarray(row["vocab_mean"], np.float32),
                    "vocab_std": np.asarray(row["vocab_std"], np.float32),
                    "hit": np.asarray(row["hit"], bool),
                }
            )
            for row in _read(Path(folder) / SCORES)
        ),
        tuple(Generated(**row) for row in _read(Path(folder) / ANSWERS)),
    )


def _write(file: Path, rows: Sequence[Any], kind: type) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, Any] = {
        "index": pa.int32(),
        "ends": pa.bool_(),
        "grad_norm": pa.float64(),
        "hit": pa.list_(pa.bool_()),
        **{name: pa.list_(pa.float32()) for name in ("logp", "vocab_mean", "vocab_std")},
    }
    names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    data = pa.table({name: [getattr(r, name) for r in rows] for name in names}, schema=schema)
    with replacing_file(file, mode=PRIVATE) as temporary:
        pq.write_table(data, temporary)


def _read(file: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowInvalid

    try:
        result: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return result
    except FileNotFoundError:
        raise InputError(f"{file}: there are no collected scores; give the folder of `expunge bench`.") from None
    except ArrowInvalid as error:
        raise InputError(f"{file}: not a table that expunge wrote ({str(error).splitlines()[0]}).") from None
