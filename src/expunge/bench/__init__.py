"""``expunge bench``: load or teach a target, unlearn what the benchmark says, measure before and after."""

from expunge.bench.run import *  # noqa: F403
