"""The four variants of a release on a benchmark, as they are run from the command line, on a tiny model."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from perf import capability

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_what_is_looked_at_has_a_name_of_its_own(workplace):
    """So that steps which were measured on fewer rows are not taken for those of more."""
    own = {"benchmark": str(EXAMPLES / "own_benchmark.py"), "data": str(EXAMPLES / "own_benchmark"), "model": "model"}
    figures = {"forget_figure": "forget/probability", "utility": "retain/probability", "better": "lower"}
    names = {capability.looking(Namespace(**own, **figures, limit=n)).name for n in (1, 2)}
    assert len(names) == 2 and all(own["data"] in name for name in names)


def test_every_variant_leaves_its_trajectory(workplace, monkeypatch):
    own = ["--benchmark", str(EXAMPLES / "own_benchmark.py"), "--data", str(EXAMPLES / "own_benchmark")]
    sets = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "out"]
    looked = ["--forget-figure", "forget/probability", "--utility", "retain/probability"]
    size = ["--limit", "2", "--steps", "2", "--total", "0.4", "max_steps=1", "lora.r=2"]
    monkeypatch.setattr(sys, "argv", ["capability", *own, *sets, *looked, *size])
    capability.main()
    said = {
        name: json.loads((workplace / "out" / f"{name}.json").read_text()) for name in capability.variants(2, 1, 1, 1)
    }
    assert [len(said[n]["trajectory"]) for n in said] == [2, 3, 3, 3]
    assert sum(said["iterative"]["settings"]["forget_coefficient"] for _ in range(2)) == 0.4
    assert said["one_shot"]["settings"]["forget_coefficient"] == 0.4
    assert [t["penalty"] > 0 for t in said["orthogonal"]["trajectory"][1:]] == [True, True]
