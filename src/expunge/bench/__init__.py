"""``expunge bench``: load or teach a target, unlearn what the benchmark says, measure before and after."""

from expunge.bench.run import Ready, Seen, carry_out, names_of, ready, run
from expunge.bench.settings import Bench, make, override, read_file

__all__ = ["Bench", "Ready", "Seen", "carry_out", "make", "names_of", "override", "read_file", "ready", "run"]
