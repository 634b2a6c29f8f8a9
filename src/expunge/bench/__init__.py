"""``expunge bench``: load or teach a target, unlearn what the benchmark says, measure before and after."""

from expunge.bench.run import Ready, SharedResults, carry_out, names_of, planned, ready, run
from expunge.bench.settings import Bench, make, override, read_file
from expunge.bench.several import make_each, planned_each, run_each

__all__ = [
    "Bench",
    "Ready",
    "SharedResults",
    "carry_out",
    "make",
    "make_each",
    "names_of",
    "override",
    "planned",
    "planned_each",
    "read_file",
    "ready",
    "run",
    "run_each",
]
