"""Statistics of two samples that depend on their order only, and the equivalence of two means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from expunge.errors import InputError
from expunge.stats.samples import LEVEL, check_level, sample


@dataclass(frozen=True)
class Equivalence:
    """Difference of two means, its interval at level 1 - 2α, the p-value of the worse one-sided test, and the verdict."""

    difference: float
    low: float
    high: float
    p: float
    equivalent: bool


def ks_two_sample(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    r"""Kolmogorov–Smirnov test: (statistic, p) of "both samples come from one distribution".

    .. math:: D = \sup_x \bigl| F_a(x) - F_b(x) \bigr|

    From (n,) and (m,).  As ``scipy.stats.ks_2samp`` does by default: two-sided, p exact up to 10 000 numbers a sample and
    asymptotic above.  On the truth ratios of an unlearned and a retrained model p is TOFU's *forget quality*.  A large p is
    not equality (:func:`tost` shows that): at 5 % two samples of 40 are only told apart from D = 13/40 on.

    Hand-worked: (1, 2, 3) and (4, 5, 6) do not overlap, D = 1; of the 20 ways to mix them two do that, p = 0.1.

    Hodges 1958, doi:10.1007/BF02589501; forget quality: Maini et al. 2024, arXiv:2401.06121.
    """
    test = scipy_stats.ks_2samp(sample(a, "the first sample"), sample(b, "the second sample"))
    return float(test.statistic), float(test.pvalue)


def auc(members: ArrayLike, non_members: ArrayLike) -> float:
    r"""Area under the ROC curve of a membership score that is *higher for non-members*.

    .. math:: P(s_{\text{non-member}} > s_{\text{member}}) + \tfrac12 P(s_{\text{non-member}} = s_{\text{member}})

    From (n,) and (m,), in whole numbers.  1 means that members are fully separable, 1/2 that they are not, 0 that they score
    as *less* known than texts the model never saw.  OpenUnlearning's convention (members 0, non-members 1); MUSE reports 1
    minus this.

    Hand-worked: members (1, 2), non-members (2, 3): the pairs 1<2, 1<3, 2=2, 2<3 give 3.5 / 4 = 0.875.

    Mann and Whitney 1947, doi:10.1214/aoms/1177730491; Dorna et al. 2025, arXiv:2506.12618.
    """
    member_scores, non_member_scores = sample(members, "the members"), sample(non_members, "the non-members")
    ordered = np.sort(member_scores)
    above = (
        ordered.searchsorted(non_member_scores, "left").sum() + ordered.searchsorted(non_member_scores, "right").sum()
    )  # a tie counts once
    return float(above / 2 / (len(member_scores) * len(non_member_scores)))


def tpr_at_fpr(members: ArrayLike, non_members: ArrayLike, fpr: float = 0.01) -> float:
    r"""Share of members found while at most ``fpr`` of the non-members are called members: what a careful attacker gets.

    .. math:: \max_t P(s_{\text{member}} < t) \quad\text{where}\quad P(s_{\text{non-member}} < t) \le \mathrm{fpr}

    From (n,) and (m,).  The score is higher for non-members, as in :func:`auc`, so a text is called a member *below* the
    threshold.  The false positive rate is never exceeded and nothing is interpolated: with fewer than 1 / ``fpr``
    non-members no false positive is allowed.  ``fpr`` · m may fall short of a whole number by 1e-9.

    Hand-worked: members (0, 1, 5), non-members (2, 3) and fpr 0: the threshold is 2, which finds 2 of 3.

    Carlini et al. 2022, arXiv:2112.03570.
    """
    if not 0 <= fpr <= 1:
        raise InputError(f"a false positive rate must lie between 0 and 1, not {fpr}")
    member_scores, non_member_scores = sample(members, "the members"), np.sort(sample(non_members, "the non-members"))
    allowed = int(np.floor(fpr * len(non_member_scores) + 1e-9))
    if allowed == len(non_member_scores):
        return 1.0
    return float((member_scores < non_member_scores[allowed]).mean())


def tost(a: ArrayLike, b: ArrayLike, margin: float, *, level: float = LEVEL) -> Equivalence:
    r"""Whether two means are *shown* to differ by less than ``margin``: two one-sided Welch tests.

    .. math:: p = \max\Bigl\{ P\bigl(t_\nu > \tfrac{d + m}{e}\bigr),\; P\bigl(t_\nu < \tfrac{d - m}{e}\bigr) \Bigr\},
        \qquad d = \bar a - \bar b, \quad e^2 = \tfrac{s_a^2}{n_a} + \tfrac{s_b^2}{n_b}

    From (n,) and (m,); ν is Welch–Satterthwaite's.  ``equivalent`` where p < α = 1 - ``level``, that is where the
    interval of the difference at level 1 - 2α (``low``, ``high``: 90 % by default) lies within ±``margin``.  It is reported
    beside forget quality, since a test of difference that does not reject shows nothing of the kind.  Unpaired: what two
    models have in common on the same examples only makes it more careful.

    Hand-worked: (0, 2) and (0, 2) have d = 0, e = √2, ν = 2 and the 90 % interval ±2.92 · 1.414 = ±4.129.

    Schuirmann 1987, doi:10.1007/BF01068419; Welch 1947, doi:10.1093/biomet/34.1-2.28.
    """
    check_level(level)
    first, second = sample(a, "the first sample"), sample(b, "the second sample")
    if len(first) < 2 or len(second) < 2:
        raise InputError("an equivalence test needs at least two numbers in each sample")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("an equivalence test compares means, so every number must be finite")
    if not margin > 0:
        raise InputError(f"the margin of an equivalence test must be above 0, not {margin}")
    difference = float(first.mean() - second.mean())
    first_variance, second_variance = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
    error = float(np.sqrt(first_variance + second_variance))
    if error == 0:
        equivalent = abs(difference) < margin
        return Equivalence(difference, difference, difference, 0.0 if equivalent else 1.0, equivalent)
    # Share of the squared error; ν from shares, since squares of tiny variances are 0.
    first_share = first_variance / (first_variance + second_variance)
    freedom = 1 / (first_share**2 / (len(first) - 1) + (1 - first_share) ** 2 / (len(second) - 1))
    t = scipy_stats.t(freedom)
    p = max(float(t.sf((difference + margin) / error)), float(t.cdf((difference - margin) / error)))
    half = float(t.ppf(level)) * error
    return Equivalence(difference, difference - half, difference + half, p, p < 1 - level)
