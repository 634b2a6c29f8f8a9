"""A record of an older version, or of nonsense, is completed: every key there, every value of its kind."""

from __future__ import annotations

import copy
import doctest
import math

import pytest

from expunge import record
from expunge.record import complete
from expunge.record_types import AuditRecord, CompareRecord, FiguresRecord, RunRecord, TuneRecord

KINDS = (RunRecord, FiguresRecord, CompareRecord, TuneRecord, AuditRecord)


def test_doctests():
    result = doctest.testmod(record)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [None, {}, [], "x", 3])
def test_nothing_gives_every_key(kind, said):
    made = complete(kind, said)
    assert set(made) == kind.__required_keys__ | kind.__optional_keys__
    assert complete(kind, made) == made


def test_what_is_required_is_told_from_what_is_not():
    optional = {"parent", "parts", "private_files", "reading", "release", "tokens", "failed"}
    optional |= {"stopped", "keep", "budget", "level", "out_of_memory"}
    assert optional >= RunRecord.__optional_keys__ >= {"release", "tokens"} and "steps" in RunRecord.__required_keys__


def test_values_of_the_right_kind_stay_and_others_go():
    said = {
        "title": "t", "seed": 3, "seconds": math.inf, "peak_memory_bytes": True, "steps": [{"step": 1, "x": None}, 7],
        "before": {"forget": {"nll": math.nan, "n": 2}, "bad": 3}, "reference": [],
        "data": {"forget": {"rows": "many", "tokens": 7}},
        "release": {"trajectory": ({"step": 0}, None), "budget": 3, "svd_error": {"rank": 2}}, "other": 1,
    }  # fmt: skip
    before = copy.deepcopy(said)
    made = complete(RunRecord, said)
    assert said == before or math.isnan(said["before"]["forget"]["nll"])  # what is given is not changed
    assert (made["title"], made["seed"], made["seconds"], made["peak_memory_bytes"]) == ("t", 3, None, None)
    assert made["steps"] == [{"step": 1, "x": None}]
    assert made["before"] == {"forget": {"nll": None, "n": 2}, "bad": {}} and made["reference"] is None
    of_text = {"pieces": None, "tokens": 7, "tokens_used": None}
    assert made["data"] == {"forget": {"source": None, "rows": None, "fingerprint": None, **of_text}}
    release = made["release"]
    assert release is not None and release["budget"] is None and release["kept"] is None
    assert release["trajectory"] == [{"step": 0, "figures": {}, "penalty": None, "seconds": None}]
    assert release["svd_error"] == {"rank": 2, "overall": None, "modules": {}} and "other" not in made
    assert complete(RunRecord, {"release": {}})["release"] is not None and complete(RunRecord, {})["release"] is None


def test_a_truth_value_is_no_number_and_a_number_no_truth_value():
    made = complete(CompareRecord, {"runs": [{"done": 1, "steps": False}, {"done": True, "steps": 4}]})
    assert [(r["done"], r["steps"]) for r in made["runs"]] == [(None, None), (True, 4)]
