r"""``compare.json`` -> a table for a paper: a line a method and choice of its grid, figures as mean ± sd over seeds.

.. math:: \bar x = \tfrac1n \sum_i x_i, \qquad s = \sqrt{\tfrac{1}{n-1} \sum_i (x_i - \bar x)^2}

Over one seed there is no deviation, and none is written.  The spread over rows of one run is another thing: those intervals
stand in the record and on the page.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.record import complete
from expunge.record_types import CompareRecord
from expunge.report.compare_page import figure_name
from expunge.report.draw import scores, tradeoff
from expunge.report.format import DASH

MODELS = ("target", "retrained")
NAMES = {"csv": "table.csv", "latex": "table.tex", "markdown": "table.md"}


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of one line: ``deviation`` is None where there are fewer than two."""

    mean: float
    deviation: float | None
    n: int


@dataclass(frozen=True)
class Line:
    """A method with what its grid set, or a model; ``failed``: how many of its runs came to nothing."""

    name: str
    cells: dict[str, Spread]
    failed: int = 0


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation of the finite ``values``; None where there are none.

    >>> spread([1.0, 3.0]), spread([2.0])
    (Spread(mean=2.0, deviation=1.4142135623730951, n=2), Spread(mean=2.0, deviation=None, n=1))
    """
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None
    deviation = statistics.stdev(finite) if len(finite) > 1 else None
    return Spread(statistics.fmean(finite), deviation, len(finite))


def lines(raw_record: Any) -> list[Line]:
    """Target and retrained model, then every method in the order of the record."""
    record = complete(CompareRecord, raw_record)
    out = []
    for role in MODELS:
        if model := {"target": record["target"], "retrained": record.get("retrained")}[role]:
            out.append(Line(role, {k: s for k in figures(record) if (s := _spread([model], k))}))
    for shown in dict.fromkeys(str(r["shown"]) for r in record["runs"]):
        of_it = [r for r in record["runs"] if r["shown"] == shown]
        done = [r for r in of_it if r["done"]]
        cells = {k: s for k in figures(record) if (s := _spread(done, k))}
        out.append(Line(shown, cells, len(of_it) - len(done)))
    return out


def figures(raw_record: Any) -> list[str]:
    """Every figure, as ``part/name``: the two that are drawn, the scores, then the others as the record has them."""
    record = complete(CompareRecord, raw_record)
    there = dict.fromkeys(f"{f['part']}/{f['name']}" for r in record["runs"] for f in r["figures"])
    return [f for f in dict.fromkeys([*headlines(record), *there]) if f in there]


def headlines(raw_record: Any) -> list[str]:
    """The figures of a table that has to fit a page: the two that are drawn, and the scores that were measured."""
    record = complete(CompareRecord, raw_record)
    there = {f"{f['part']}/{f['name']}" for r in record["runs"] for f in r["figures"]}
    wanted = dict.fromkeys([str(record["forget_figure"]), str(record["utility_figure"]), *scores.NAMES])
    return [f for f in wanted if f in there]


def _spread(models: Sequence[Any], figure: str) -> Spread | None:
    found = (tradeoff.value(m, figure) for m in models)
    return spread([v[0] for v in found if v is not None])


# -- formats --------------------------------------------------------------------------------------------------------------
def as_csv(raw_record: Any) -> str:
    """Every figure in full precision: columns ``FIGURE`` and ``FIGURE sd``, and how many seeds a line has."""
    record = complete(CompareRecord, raw_record)
    wanted = figures(record)
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(["method", "seeds", "failed", *(name for f in wanted for name in (f, f"{f} sd"))])
    for line in lines(record):
        cells = [line.cells.get(f) for f in wanted]
        seeds = max((c.n for c in cells if c), default=0)
        values = [v for c in cells for v in ((c.mean, c.deviation) if c else (None, None))]
        write.writerow([line.name, seeds, line.failed, *("" if v is None else repr(v) for v in values)])
    return out.getvalue()


def as_markdown(raw_record: Any) -> str:
    """The headlines, three decimals."""
    record = complete(CompareRecord, raw_record)
    wanted = headlines(record)
    head = [["method", *map(figure_name, wanted)], ["---", *["---:"] * len(wanted)]]
    body = [
        [line.name.replace("|", "\\|"), *(_cell(line.cells.get(f), " ± ") for f in wanted)] for line in lines(record)
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [*head, *body]) + f"\n{note(record)}\n"


def as_latex(raw_record: Any) -> str:
    r"""The headlines as a ``tabular`` with the rules of booktabs; ``\input`` takes it as it is."""
    record = complete(CompareRecord, raw_record)
    wanted = headlines(record)
    head = " & ".join(["Method", *(_tex(figure_name(f)) for f in wanted)])
    models = [line for line in lines(record) if line.name in MODELS]
    body = [
        " & ".join([_tex(line.name), *(_math(line.cells.get(f)) for f in wanted)]) + r" \\" for line in lines(record)
    ]
    rows = [*body[: len(models)], *([r"\midrule"] if models and len(body) > len(models) else []), *body[len(models) :]]
    return "\n".join(
        [
            f"% {note(record)}",
            f"\\begin{{tabular}}{{l{'r' * len(wanted)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


FORMATS: dict[str, Callable[[Any], str]] = {"csv": as_csv, "latex": as_latex, "markdown": as_markdown}


def note(raw_record: Any) -> str:
    """What the numbers are, in a sentence for the caption."""
    record = complete(CompareRecord, raw_record)
    n, failed = len(record["seeds"]), [line for line in lines(record) if line.failed]
    over = f"mean ± standard deviation over {n} seeds" if n > 1 else "one seed"
    lost = "; runs that failed are left out: " + ", ".join(f"{x.failed} of {x.name}" for x in failed) if failed else ""
    return f"{record['benchmark']}, {over}{lost}."


def _cell(of: Spread | None, sign: str) -> str:
    if of is None:
        return DASH
    return f"{of.mean:.3f}" + ("" if of.deviation is None else f"{sign}{of.deviation:.3f}")


def _math(of: Spread | None) -> str:
    return "--" if of is None else "$" + _cell(of, r" \pm ") + "$"


def _tex(text: str) -> str:
    """``text`` with LaTeX's own characters escaped.

    >>> _tex("blur_npo beta=0.5 & 5 %")
    'blur\\\\_npo beta=0.5 \\\\& 5 \\\\%'
    """
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(named.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
