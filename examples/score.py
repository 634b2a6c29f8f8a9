"""Measure a model from Python: the same figures that ``expunge bench`` prints.

    python examples/score.py MODEL

``named`` takes a name such as ``tofu/forget10`` or ``muse/news`` too; without ``data`` their rows come from the Hub.
"""

import sys

from expunge.benchmarks import named
from expunge.evaluation.evaluate import evaluate

if __name__ == "__main__":
    benchmark = named("examples/own_benchmark.py")
    for f in evaluate(benchmark, sys.argv[1], "figures-from-python", data="examples/own_benchmark"):
        print(f"{f.part:8} {f.name:16} {f.value:.3f}  ({f.low:.3f} to {f.high:.3f}, n={f.n})")
