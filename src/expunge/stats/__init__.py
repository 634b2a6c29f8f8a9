r"""Tests, areas and intervals behind every figure.  numpy and scipy only.

A *sample* is one list of numbers (n,).  An empty one, or one with NaN in it, is an
:class:`~expunge.errors.InputError` everywhere; infinities pass where only the order counts.  Whatever is drawn at random
is drawn from ``seed``, so the same call gives the same interval.

Scores of membership inference are *higher for non-members*, as in OpenUnlearning (Dorna et al. 2025, arXiv:2506.12618).
"""

from expunge.stats.exact import clopper_pearson, wilson
from expunge.stats.multiple import holm
from expunge.stats.paired import Estimate, auc_estimate, of_row_means, tost_paired
from expunge.stats.ranks import Equivalence, auc, ks_two_sample, tost, tpr_at_fpr
from expunge.stats.recovery import cross_chosen, excess_recovery, recovery, remaining_share, steps_to
from expunge.stats.resampling import (
    RESAMPLES,
    auc_interval,
    bootstrap,
    bootstrap_mean,
    bootstrap_of_means,
    bounded_mean,
    paired_bootstrap,
    ratio_bootstrap,
)
from expunge.stats.samples import LEVEL, Array, Interval, harmonic_mean, ratio, sample

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Array",
    "Equivalence",
    "Estimate",
    "Interval",
    "auc",
    "auc_estimate",
    "auc_interval",
    "bootstrap",
    "bootstrap_mean",
    "bootstrap_of_means",
    "bounded_mean",
    "clopper_pearson",
    "cross_chosen",
    "excess_recovery",
    "harmonic_mean",
    "holm",
    "ks_two_sample",
    "of_row_means",
    "paired_bootstrap",
    "ratio",
    "ratio_bootstrap",
    "recovery",
    "remaining_share",
    "sample",
    "steps_to",
    "tost",
    "tost_paired",
    "tpr_at_fpr",
    "wilson",
]
