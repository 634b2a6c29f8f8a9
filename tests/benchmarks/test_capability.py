"""The four variants of a release on a benchmark, as they are run from the command line, on a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import capability

EXAMPLES = Path(__file__).parents[2] / "examples"


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
