"""Which trial of a grid does best by a figure; report it on rows that the choice did not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from expunge.errors import InputError


def best(
    runs: Iterable[Mapping[str, Any]], figures: Sequence[str], *, better: str = "higher"
) -> dict[str, Mapping[str, Any]]:
    """Label -> the run with the best of ``figures`` (``part/name``), the first that differs deciding; of equals the first.

    ``runs``: as in ``compare.json``; one that failed, or whose first figure is no number, is not chosen, and a label of
    which that is true of all is left out.  ``better``: higher or lower.  Raises InputError for a figure that no run has.

    >>> run = lambda label, value: {"label": label, "figures": [{"part": "all", "name": "score", "value": value}]}
    >>> chosen = best([run("npo", 0.2), run("npo", 0.4), run("pdu", None)], ["all/score"])
    >>> {label: it["figures"][0]["value"] for label, it in chosen.items()}
    {'npo': 0.4}
    """
    if better not in ("higher", "lower"):
        raise InputError(f"better is 'higher' or 'lower', not {better!r}")
    sign = 1 if better == "higher" else -1
    known: set[str] = set()
    found: dict[str, tuple[tuple[float, ...], Mapping[str, Any]]] = {}
    for run in runs:
        values = {f"{f['part']}/{f['name']}": f["value"] for f in run.get("figures") or ()}
        known |= set(values)
        if values.get(figures[0]) is None:
            continue
        key = tuple(sign * v if (v := values.get(name)) is not None else float("-inf") for name in figures)
        if run["label"] not in found or key > found[run["label"]][0]:
            found[run["label"]] = key, run
    for name in figures:
        if known and name not in known:
            raise InputError(f"no run has the figure {name!r}; there are {', '.join(sorted(known))}")
    return {label: run for label, (_, run) in found.items()}
