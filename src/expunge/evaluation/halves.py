"""Half of a benchmark's rows: what is chosen on one half is reported on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from expunge.evaluation.benchmark import Benchmark
from expunge.evaluation.probe import Probe

BLOCKS = 20  # of each part: neighbours, which often tell of the same thing, stay together


def half(chosen: Benchmark, which: Literal["first", "second"], blocks: int = BLOCKS) -> Benchmark:
    """``chosen`` with every other block of each part's rows, the ``first`` or the ``second`` of each two.

    Its data, what is forgotten and what is kept stay as they are: training sees all rows.
    """
    return replace(
        chosen, name=f"{chosen.name}/{which}-half", probes=lambda data: in_half(chosen.probes(data), which, blocks)
    )


def in_half(probes: Sequence[Probe], which: Literal["first", "second"], blocks: int = BLOCKS) -> list[Probe]:
    """Those of ``probes`` in the even (``first``) or odd (``second``) blocks, as many blocks of each part or one a row.

    >>> from expunge.data.example import Row
    >>> of = [Probe("forget", i, Row("?", "a")) for i in range(8)]
    >>> [p.index for p in in_half(of, "first", 4)], [p.index for p in in_half(of, "second", 4)]
    ([0, 1, 4, 5], [2, 3, 6, 7])
    """
    rows: dict[str, int] = {}
    for p in probes:
        rows[p.part] = max(rows.get(p.part, 0), p.index + 1)
    odd = which == "second"
    return [p for p in probes if p.index * min(blocks, rows[p.part]) // rows[p.part] % 2 == odd]
