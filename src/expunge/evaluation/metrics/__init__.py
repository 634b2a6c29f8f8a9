"""Numbers in, a number out: every metric, in numpy only, so that a record is scored again on any machine."""

from expunge.evaluation.metrics.likelihood import *  # noqa: F403
