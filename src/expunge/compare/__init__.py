"""Several methods on one data set with equal budgets: every run measured alike, one record, one trade-off figure.

``settings`` says what decides a comparison and makes its trials, ``budget`` what they may spend, ``resume`` what is there
already; ``run`` carries them out, ``describe`` makes the record and ``choose`` picks the best trial of each method.
"""

from expunge.compare.choose import best
from expunge.compare.run import compare, planned, run
from expunge.compare.scores import scored
from expunge.compare.settings import Compare, Trial, make, override, read_file, trials

__all__ = ["Compare", "Trial", "best", "compare", "make", "override", "planned", "read_file", "run", "scored", "trials"]
