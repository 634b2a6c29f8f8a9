r"""Tests, areas and intervals behind every figure.  numpy and scipy only.

A *sample* is one list of numbers (n,).  An empty one, or one with NaN in it, is an
:class:`~expunge.errors.InputError` everywhere; infinities pass where only the order counts.  Whatever is drawn at random
is drawn from ``seed``, so the same call gives the same interval.

Scores of membership inference are *higher for non-members*, as in OpenUnlearning (Dorna et al. 2025, arXiv:2506.12618).
"""

from expunge.stats.exact import clopper_pearson, wilson
from expunge.stats.ranks import Equivalence, auc, ks_two_sample, tost, tpr_at_fpr
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
    "Interval",
    "auc",
    "auc_interval",
    "bootstrap",
    "bootstrap_mean",
    "bootstrap_of_means",
    "bounded_mean",
    "clopper_pearson",
    "harmonic_mean",
    "ks_two_sample",
    "paired_bootstrap",
    "ratio",
    "ratio_bootstrap",
    "sample",
    "tost",
    "tpr_at_fpr",
    "wilson",
]
