"""Metrics from outside the library: figures of a run and of a benchmark beside those that expunge computes itself.

A metric is a function ``metric(found, part)`` of what was collected of a model (:class:`expunge.evaluation.table.Collected`)
and the name of a set (``forget``, ``retain``, or a benchmark's part).  It returns one number a row (an array, whose mean is
the figure, with an interval), one number, or None where it has nothing to say of that set.  Needs no torch.
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
    list[str] | None, BeforeValidator(lambda given: given.strip("[] ").split(",") if isinstance(given, str) else given)
]
HELP = (
    "A metric of your own beside the figures: FILE.py:NAME, or a name that an installed package offers; several: A,B."
)


def metrics(names: Iterable[str] | None) -> dict[str, Metric]:
    """Figure's name -> metric, of ``FILE.py:NAME`` or a name of the entry points ``expunge.metrics``; InputError if none."""
    out: dict[str, Metric] = {}
    for spec in (name.strip(" \"'") for name in names or ()):
        if plugins.is_file(spec):
            made, name = plugins.of_file("metric", spec)[0], spec.rpartition(":")[2]
        else:
            made, name = plugins.offered("metric", spec), spec
            if made is None:
                known = plugins.names("metric")
                there = f"there are {', '.join(known)}" if known else "no installed package offers one"
                raise InputError(f"there is no metric {spec!r}{nearest(spec, known)}; {there}; or give FILE.py:NAME")
            if not callable(made):
                raise InputError(f"the metric {spec} is a {type(made).__name__}, not a function")
        if name in out:
            raise InputError(f"two metrics are called {name}; give one of them another name")
        out[name] = made
    return out


def values(chosen: Mapping[str, Metric], found: Collected, part: str) -> dict[str, np.ndarray]:
    """Name -> one number a row (n,), or one number (), of each metric that has something to say of ``part``.

    Raises InputError where a metric fails or gives something else; its own text is left out, for it may quote data.
    """
    out = {}
    for name, metric in chosen.items():
        try:
            given = metric(found, part)
            made = None if given is None else np.asarray(given, dtype=np.float64)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the metric {name} failed on {part!r}: {type(error).__name__}") from error
        if made is None:
            continue
        if made.ndim > 1 or not made.size or np.isnan(made).any():
            raise InputError(
                f"the metric {name} gave no number, nor one a row, on {part!r}; return None to leave it out"
            )
        out[name] = made
    return out


def means(chosen: Mapping[str, Metric], found: Collected, part: str) -> dict[str, float]:
    """Name -> the figure on ``part``, as a run's record holds it."""
    return {name: float(made.mean()) for name, made in values(chosen, found, part).items()}


def figures(chosen: Mapping[str, Metric], found: Collected) -> list[Figure]:
    """The figures of every part, as a benchmark's record holds them; the mean of one number a row has an interval."""
    if not chosen:
        return []
    sizes: dict[str, set[int]] = {}
    for s in found.scores:
        sizes.setdefault(s.part, set()).add(s.index)
    for a in found.answers:
        sizes.setdefault(a.part, set()).add(a.index)
    out = []
    for part, rows in sizes.items():
        for name, made in values(chosen, found, part).items():
            one = made.ndim == 0
            out.append(Figure(name, float(made), len(rows), part=part) if one else mean_figure(name, made, part))
    return out
