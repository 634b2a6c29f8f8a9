"""Bootstrap intervals from few resamples, for tests that are not of an interval's numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def few_resamples(patch: Callable[[Any, str, Any], None], resamples: int = 20) -> None:
    """Let every figure of an evaluation take so many resamples; ``patch`` sets an attribute, as ``setattr`` does."""
    from expunge import stats
    from expunge.benchmarks import lume, mmlu, ner, tofu
    from expunge.evaluation import benchmark, scores
    from expunge.evaluation.metrics import privacy

    for module, name in (
        (privacy, "auc_interval"),
        *((module, "bootstrap_of_means") for module in (lume, mmlu, tofu)),
        (ner, "ratio_bootstrap"),
        (benchmark, "bounded_mean"),
        (benchmark, "bootstrap_mean"),
    ):
        patch(module, name, partial(getattr(stats, name), resamples=resamples))
    patch(scores, "RESAMPLES", resamples)
