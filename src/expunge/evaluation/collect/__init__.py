"""What a model says to a benchmark: one pass over it (``one_pass``), kept in the user's cache (``cached``).  Needs torch."""

from expunge.evaluation.collect.one_pass import collect
from expunge.processes import state as processes

__all__ = ["collect", "processes"]
