"""Intervals of a share from its distribution, nothing drawn at random."""

from __future__ import annotations

import numpy as np
from scipy import stats as scipy_stats

from expunge.errors import InputError
from expunge.stats.samples import LEVEL, Interval, check_level


def clopper_pearson(successes: int, n: int, *, level: float = LEVEL) -> Interval:
    r"""Exact interval of a share, ``successes`` of ``n``: it covers the true share at least as often as ``level`` says.

    .. math:: \bigl[\,B_{\alpha/2}(k,\, n - k + 1),\; B_{1-\alpha/2}(k + 1,\, n - k)\bigr], \qquad \alpha = 1 - \text{level}

    B_q is the beta distribution's quantile; the bounds are 0 for k = 0 and 1 for k = n.

    Hand-worked: 0 of 10 has the upper bound 1 - 0.025^(1/10) = 0.3085: no leak in ten is no proof of none in four.

    Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    check_level(level)
    if not 0 <= successes <= n or n == 0 or not (float(successes).is_integer() and float(n).is_integer()):
        raise InputError(f"{successes} of {n} is no share: give whole numbers, 0 ≤ successes ≤ n and n ≥ 1")
    interval = scipy_stats.binomtest(int(successes), int(n)).proportion_ci(level, method="exact")
    return Interval(float(interval.low), float(interval.high))


def wilson(share: float, error: float, *, level: float = LEVEL) -> Interval:
    r"""Wilson's interval of a share whose standard error is known: never outside [0, 1].

    .. math:: \frac{p + z^2/2n}{1 + z^2/n} \pm \frac{z}{1 + z^2/n}\sqrt{\frac{p\,(1-p)}{n} + \frac{z^2}{4 n^2}},
        \qquad n = \frac{p\,(1 - p)}{e^2}

    n is the number of examples that would give the error e; InputError where p or e is 0 or p is 1, which give none.

    Hand-worked: p = 1/2 and e = 0.1 are n = 25, and 1/2 ± 1.96 / 1.1537 · √(0.01 + 0.001537) is [0.3175, 0.6825].

    Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    check_level(level)
    if not (0 < share < 1 and error > 0):
        raise InputError(
            f"Wilson's interval needs a share between 0 and 1 and an error above 0, not {share} and {error}"
        )
    n = share * (1 - share) / error**2
    z = float(scipy_stats.norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def share_of_others(n: int, level: float) -> float:
    """The largest share of examples that may be otherwise where n of n are alike."""
    return float(1 - ((1 - level) / 2) ** (1 / n))
