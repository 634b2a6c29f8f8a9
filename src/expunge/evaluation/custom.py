"""Metrics from outside the library: figures of a run and of a benchmark beside those that expunge computes itself.

A metric is a function ``metric(collected, part)`` of a model's scores and answers
(:class:`expunge.evaluation.table.Collected`) and the name of a set (``forget``, ``retain``, or a benchmark's part).  It
returns one number a row (an array, whose mean is the figure, with an interval), one number, or None for a
set that it does not apply to.  Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import BeforeValidator

from expunge import plugins
from expunge.errors import InputError, nearest
from expunge.evaluation.benchmark import Figure, mean_figure
from expunge.evaluation.table import Collected

Metric: TypeAlias = Callable[[Collected, str], Any]
Names: TypeAlias = Annotated[
    list[str] | None, BeforeValidator(lambda value: value.strip("[] ").split(",") if isinstance(value, str) else value)
]
HELP = (
    "A metric of your own beside the figures: FILE.py:NAME, or a name that an installed package offers; several: A,B."
)


def metrics(names: Iterable[str] | None) -> dict[str, Metric]:
    """Figure's name -> metric, of ``FILE.py:NAME`` or a name of the entry points ``expunge.metrics``; InputError if none."""
    out: dict[str, Metric] = {}
    for spec in (name.strip(" \"'") for name in names or ()):
        if plugins.is_file(spec):
            function, name = plugins.of_file("metric", spec)[0], spec.rpartition(":")[2]
        else:
            function, name = plugins.offered("metric", spec), spec
            if function is None:
                offered = plugins.names("metric")
                available = f"there are {', '.join(offered)}" if offered else "no installed package offers one"
                raise InputError(
                    f"there is no metric {spec!r}{nearest(spec, offered)}; {available}; or give FILE.py:NAME"
                )
            if not callable(function):
                raise InputError(f"the metric {spec} is a {type(function).__name__}, not a function")
        if name in out:
            raise InputError(f"two metrics are called {name}; give one of them another name")
        out[name] = function
    return out


def values(functions: Mapping[str, Metric], collected: Collected, part: str) -> dict[str, np.ndarray]:
    """Name -> one number a row (n,), or one number (), of each metric that applies to ``part``.

    Raises InputError where a metric fails or returns something else; the error's own text is left out: it may quote data.
    """
    out = {}
    for name, metric in functions.items():
        try:
            result = metric(collected, part)
            numbers = None if result is None else np.asarray(result, dtype=np.float64)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the metric {name} failed on {part!r}: {type(error).__name__}") from error
        if numbers is None:
            continue
        if numbers.ndim > 1 or not numbers.size or np.isnan(numbers).any():
            raise InputError(
                f"the metric {name} gave no number, nor one a row, on {part!r}; return None to leave it out"
            )
        out[name] = numbers
    return out


def means(functions: Mapping[str, Metric], collected: Collected, part: str) -> dict[str, float]:
    """Name -> the figure on ``part``, for a run's record."""
    return {name: float(numbers.mean()) for name, numbers in values(functions, collected, part).items()}


def figures(functions: Mapping[str, Metric], collected: Collected) -> list[Figure]:
    """The figures of every part, for a benchmark's record; the mean of one number a row has an interval."""
    if not functions:
        return []
    sizes: dict[str, set[int]] = {}
    for s in collected.scores:
        sizes.setdefault(s.part, set()).add(s.index)
    for a in collected.answers:
        sizes.setdefault(a.part, set()).add(a.index)
    out = []
    for part, rows in sizes.items():
        for name, numbers in values(functions, collected, part).items():
            is_single = numbers.ndim == 0
            out.append(
                Figure(name, float(numbers), len(rows), part=part) if is_single else mean_figure(name, numbers, part)
            )
    return out
