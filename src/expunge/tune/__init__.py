"""Tune the settings of methods with equal budgets of trials, on one half of the rows, reported on the other.

``settings`` says what decides a tuning, ``space`` what is searched, ``objective`` what a trial is worth, ``study`` is
Optuna's part; ``on_rows`` and ``on_benchmark`` are the two kinds of data, ``trial`` carries out one trial, ``sweep`` all of
them and ``run`` the command; ``describe`` makes the record and ``recipes`` the best recipe of each method.
"""

from expunge.tune.run import planned, run, tune
from expunge.tune.settings import Tune, from_words, make, override, read

__all__ = ["Tune", "from_words", "make", "override", "planned", "read", "run", "tune"]
