"""The best trial of each method."""

from __future__ import annotations

import pytest

from expunge.compare import best
from expunge.errors import InputError


def run(label, name, **values):
    figures = [{"part": "all", "name": k, "value": v} for k, v in values.items()]
    return {"label": label, "name": name, "figures": figures}


RUNS = [
    run("npo", "a", score=0.2, mean=0.9),
    run("npo", "b", score=0.4, mean=0.1),
    run("pdu", "c", score=0.0, mean=0.3),
    run("pdu", "d", score=0.0, mean=0.5),
    run("pdu", "e", score=0.0, mean=0.5),
    run("pdu", "f", score=None, mean=0.9),
    {"label": "rmu", "name": "g", "figures": []},
]


def names(*args, **kwargs):
    return {label: it["name"] for label, it in best(RUNS, *args, **kwargs).items()}


def test_the_first_figure_decides_then_the_next_then_the_order():
    assert names(["all/score", "all/mean"]) == {"npo": "b", "pdu": "d"}
    assert names(["all/score"]) == {"npo": "b", "pdu": "c"}
    assert names(["all/score", "all/mean"], better="lower") == {"npo": "a", "pdu": "c"}


def test_what_is_no_figure_is_refused():
    for name in ("all/scores", "score"):
        with pytest.raises(InputError, match=f"no run has the figure '{name}'; there are all/mean, all/score"):
            best(RUNS, [name])
    with pytest.raises(InputError, match="higher"):
        best(RUNS, ["all/score"], better="more")
    assert best([], ["all/score"]) == {}
