"""The field's benchmarks, one plain file each; ``BENCHMARKS`` is the table of them."""

from __future__ import annotations

from expunge.benchmarks import tofu
from expunge.evaluation.benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {b.name: b for b in (*tofu.ALL,)}
