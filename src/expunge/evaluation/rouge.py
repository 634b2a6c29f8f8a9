"""``expunge.evaluation.rouge``, a public name of :mod:`expunge.evaluation.metrics.rouge`."""

from expunge.evaluation.metrics.rouge import *  # noqa: F403
