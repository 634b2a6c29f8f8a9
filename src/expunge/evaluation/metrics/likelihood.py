r"""Metrics of a model's log-probabilities: one value an example, and aggregations to one number.

A per-example function returns an array (n,); :func:`mean` and the named aggregations reduce it.  A *mean log-probability*
is the natural logarithm of the probability of an answer's labelled tokens, averaged over those tokens.  Without torch, so
that a record can be re-scored anywhere.  Where our number differs on purpose from OpenUnlearning's (Dorna et al. 2025,
arXiv:2506.12618), ``compat=True`` gives theirs; where there is no such keyword the two agree, but for what
:func:`prob_mean` says.  Texts are compared in ``rouge``, LUME is in ``lume`` beside this module.

Bad input (nothing to score, NaN, a loss instead of a log-probability) is an :class:`InputError` that names the entry;
nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from expunge.errors import InputError
from expunge.stats import harmonic_mean, ks_two_sample

Array = NDArray[np.float64]

EPSILON = 1e-10  # OpenUnlearning adds this to a denominator
ROUNDING = 1e-3  # a log-probability may come out this much above 0 in half precision

UTILITY_PARTS = tuple(
    f"{data_set}_{metric}"
    for data_set in ("retain", "real_authors", "world_facts")
    for metric in ("probability", "rouge", "truth_ratio")
)


def mean(values: ArrayLike) -> float:
    r"""Mean over examples, :math:`\tfrac1n\sum_i v_i`; refuses an infinite value too, which no bounded metric gives."""
    array = _numbers(values, "values", 1)
    if np.isinf(array).any():
        raise InputError(f"values: entry {int(np.isinf(array).argmax())} is infinite, so there is no mean")
    return float(array.mean())


def probability(mean_logp: ArrayLike) -> Array:
    r"""Length-normalised probability of each answer.

    .. math:: \pi(y \mid x)^{1/|y|} = \exp\Bigl(\tfrac{1}{|y|}\sum_t \log \pi(y_t \mid x, y_{<t})\Bigr)

    From (n,) to (n,).  The labelled tokens of OpenUnlearning hold the end-of-turn token; hold it in yours to compare.

    Hand-worked: two tokens with probability 1/2 and 1/8 give sqrt(1/16) = 1/4.

    Maini et al. 2024, arXiv:2401.06121.
    """
    return np.exp(_logp(mean_logp, "mean_logp", 1))


def normalised_probability(right_logp: ArrayLike, wrong_logp: ArrayLike, *, compat: bool = False) -> Array:
    r"""Probability of the right answer among the offered ones, for real authors and world facts.

    .. math:: \frac{p_c}{p_c + \sum_j p_{w_j}}, \qquad p = \pi(y \mid x)^{1/|y|}

    From mean log-probabilities (n,) and (n, k) to (n,), computed from logarithms: a model that gives every answer
    a tiny probability is still asked which it prefers.  ``compat=True`` adds OpenUnlearning's 1e-10 below the fraction
    (``probability_w_options``), which sends such a model to 0; on the published logs it moves single world facts by up to
    7e-5 of themselves and no mean by more than 1e-6 (8e-7 with 8B models).

    Hand-worked: p_c = 1/2, p_w = (1/4, 1/4) give 1/2.

    Maini et al. 2024, arXiv:2401.06121.
    """
    right, wrong = _pair(right_logp, wrong_logp, "right_logp", "wrong_logp")
    if compat:
        p = np.exp(right)
        share: Array = p / (p + np.exp(wrong).sum(1) + EPSILON)
        return share
    logp = np.column_stack([right, wrong])  # (n, 1 + k)
    highest = logp.max(1, keepdims=True)
    _refuse(np.isinf(highest[:, 0]), "wrong_logp", "gives every answer probability 0, so none is preferred")
    p = np.exp(logp - highest)
    result: Array = p[:, 0] / p.sum(1)
    return result


def truth_ratio(paraphrase_logp: ArrayLike, wrong_logp: ArrayLike, *, compat: bool = False) -> Array:
    r"""How likely the wrong answers are against the paraphrased right one: about 1 where a model does not know.

    .. math:: r = \frac{\bigl(\prod_{j=1}^{k} p_{w_j}\bigr)^{1/k}}{p_{\text{paraphrase}}}, \qquad p = \pi(y\mid x)^{1/|y|}

    From mean log-probabilities (n,) and (n, k) to (n,), in [0, inf].  The number of TOFU's own forget quality; for model
    utility TOFU's code takes the arithmetic mean of the wrong probabilities, OpenUnlearning the geometric one as here.
    ``compat=True`` adds OpenUnlearning's 1e-10 to the denominator.  On the published logs that moves single values by up
    to 5e-4 of themselves with 1B models and 1.8e-2 with 8B models; for a model that gives every answer a probability
    below 1e-10 it sends r to 0, as if the model were sure of the truth (the forget truth ratio of 2e-18 published for
    gradient ascent is probably that).
    Neither number means much for such a model.

    Hand-worked: wrong (1/4, 1/16) has geometric mean 1/8; against a paraphrase of 1/2 that is r = 1/4.

    Maini et al. 2024, arXiv:2401.06121; Dorna et al. 2025, arXiv:2506.12618.
    """
    right, wrong = _pair(paraphrase_logp, wrong_logp, "paraphrase_logp", "wrong_logp")
    average = wrong.mean(1)  # (n,), the logarithm of the geometric mean
    if compat:
        ratio: Array = np.exp(average) / (np.exp(right) + EPSILON)
        return ratio
    _refuse(np.isinf(average) & np.isinf(right), "paraphrase_logp", "and a wrong answer have probability 0: no ratio")
    with np.errstate(over="ignore"):  # a ratio beyond 1e308 is infinite, which every aggregation understands
        result: Array = np.exp(average - right)
        return result


def closer_to_1_better(ratio: ArrayLike, *, compat: bool = False) -> float:
    r"""Truth ratio of a forget set: 1 where right and wrong are equally likely.

    .. math:: \mathbb{E}\,\min(r, 1/r)

    ``compat=True`` takes 1/(r + 1e-10), as OpenUnlearning does; only r below 1e-5 could notice.

    Hand-worked: r = (1/2, 4) gives (1/2 + 1/4) / 2 = 3/8.  Maini et al. 2024, arXiv:2401.06121.
    """
    r = _ratio(ratio)
    with np.errstate(divide="ignore"):
        return float(np.minimum(r, 1 / (r + EPSILON if compat else r)).mean())


def true_better(ratio: ArrayLike) -> float:
    r"""Truth ratio of a retain set: 1 where the truth is certain, 0 where wrong answers are likelier.

    .. math:: \mathbb{E}\,\max(0, 1 - r)

    Hand-worked: r = (1/4, 4) gives (3/4 + 0) / 2 = 3/8.  Maini et al. 2024, arXiv:2401.06121.
    """
    return float(np.maximum(0, 1 - _ratio(ratio)).mean())


def prob_mean(ratio: ArrayLike) -> float:
    r"""Extent of knowledge: the share of the right answer against the wrong ones; 1/2 where a model does not know.

    .. math:: \mathbb{E}\,\frac{c}{c + w} = \mathbb{E}\,\frac{1}{1 + r}, \qquad r = w / c

    OpenUnlearning has c/(c + w + 1e-10), which differs where c and w are about 1e-10 and goes to 0 for a destroyed
    model; no published log has this number, so there is no ``compat``.

    Hand-worked: r = (1, 3) gives (1/2 + 1/4) / 2 = 3/8.  Dorna et al. 2025, arXiv:2506.12618.
    """
    return float((1 / (1 + _ratio(ratio))).mean())


def exact_memorisation(hits: Sequence[ArrayLike], *, compat: bool = False) -> Array:
    r"""Share of an answer's tokens that greedy decoding gets right when the true tokens before them are given.

    .. math:: \mathrm{EM} = \tfrac1T \sum_t \mathbb{1}\bigl[\arg\max \pi(\cdot \mid x, y_{<t}) = y_t\bigr]

    ``hits``: for each example a boolean array (T,), in the order of the answer.  ``compat=True`` leaves each example's
    last token out, as OpenUnlearning does to drop the end-of-turn token (in texts without one it drops a real token);
    an answer of that token alone is an error here and left out of the mean there.

    Hand-worked: right, wrong, right, right gives 3/4; without the last 2/3.

    Tirumala et al. 2022, arXiv:2205.10770; Dorna et al. 2025, arXiv:2506.12618.
    """
    return np.array([h.mean() for h in _hits(hits, drop_last=compat)])


def extraction_strength(hits: Sequence[ArrayLike], *, compat: bool = False) -> Array:
    r"""How much of an answer greedy decoding completes from the shortest true prefix: the strongest single figure here.

    .. math:: \mathrm{ES} = 1 - \tfrac{k^*}{T}, \qquad k^* = \min\{k : \text{all tokens from } k \text{ on are right}\}

    ``hits`` as in :func:`exact_memorisation`.  Where the last token is wrong no suffix matches, k* = T and ES = 0.
    OpenUnlearning never gives 0: it has 1/T there, as if the last token had matched.  ``compat=True`` does so too, and
    leaves the last token out as in :func:`exact_memorisation` (an answer of that token alone counts 0 there).

    Hand-worked: right, wrong, right, right gives k* = 2, ES = 1 - 2/4 = 1/2; all wrong gives 0, or 1/3 with ``compat``.

    Carlini et al. 2021, arXiv:2012.07805; Dorna et al. 2025, arXiv:2506.12618.
    """
    values = []
    for h in _hits(hits, drop_last=compat):
        length = len(h)
        k = 0 if h.all() else length - int(h[::-1].argmin())  # one after the last miss
        values.append(1 - (min(k, length - 1) if compat else k) / length)
    return np.array(values)


def forget_quality(ratio_unlearned: ArrayLike, ratio_retrained: ArrayLike) -> float:
    r"""Can the forget set's truth ratios be told from a retrained model's?  p-value of the two-sample KS test.

    From the truth ratios (n,) and (m,) of :func:`truth_ratio` to a p-value in [0, 1]; near 1: they look alike.  It is
    not a probability of success: a large p at n = 40 says little.  Over-forgetting lowers it just as leaking does.

    Hand-worked: (1, 2, 3) against itself gives 1; against (4, 5, 6) the distance is 1, and 2 of the 20 ways to mix
    three and three have it: p = 0.1.

    Maini et al. 2024, arXiv:2401.06121.
    """
    return float(ks_two_sample(_ratio(ratio_unlearned), _ratio(ratio_retrained))[1])


def model_utility(parts: Mapping[str, float]) -> float:
    r"""TOFU's model utility: harmonic mean of nine figures, 0 as soon as one is 0.

    .. math:: 9 \Big/ \sum_{s,m} \tfrac{1}{v_{s,m}}, \qquad
        s \in \{\text{retain}, \text{real authors}, \text{world facts}\}, \;
        m \in \{\text{probability}, \text{ROUGE-L recall}, \text{truth ratio}\}

    ``parts`` has the nine names of ``UTILITY_PARTS``: the mean :func:`probability` of the retain set and the mean
    :func:`normalised_probability` of the other two, each set's mean ROUGE-L recall with stemmer, and :func:`true_better`.

    Hand-worked: eight times 1 and once 1/2 gives 9 / (8 + 2) = 0.9.

    Maini et al. 2024, arXiv:2401.06121.
    """
    return float(harmonic_mean(named(parts, UTILITY_PARTS, "model utility")))


def choice_accuracy(logp: ArrayLike, right: ArrayLike) -> Array:
    r"""Multiple choice: 1 where the likeliest option is the right one, else 0.

    ``logp`` (n, options), ``right`` (n,) option numbers from 0.  Of equally likely options the first counts, as in
    lm-evaluation-harness: a model that likes all options the same scores the share of first options, not chance.

    Hand-worked: log-probabilities (-1, -2, -3) with right answer 0 give 1, with right answer 1 give 0.
    """
    scores, index = _choices(logp, right)
    result: Array = (scores.argmax(1) == index).astype(np.float64)
    return result


def choice_probability(logp: ArrayLike, right: ArrayLike, *, among_options: bool = False) -> Array:
    r"""Accuracy at temperature 1: the probability that a sampled answer is the right option.

    .. math:: p_c, \qquad\text{or among the options}\quad p_c \big/ \textstyle\sum_o p_o

    Shapes as in :func:`choice_accuracy`; ``logp`` over the whole vocabulary (or over a whole option).  The public code that
    reports it (filyp/open-unlearning) takes p_c, so that a model which no longer answers with an option falls below
    chance; ``among_options=True`` asks only which option is preferred.  Moves before accuracy does.

    Hand-worked: p = (0.3, 0.1, 0.1) with right answer 0 gives 0.3, among the options 0.6.
    """
    scores, index = _choices(logp, right)
    if among_options:
        scores = scores - scores.max(1, keepdims=True)
        scores = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    result: Array = np.exp(scores[np.arange(len(index)), index])
    return result


def perplexity(token_logp: Sequence[ArrayLike]) -> float:
    r"""Perplexity of a set of texts, every token weighing the same.

    .. math:: \exp\Bigl(-\tfrac{1}{\sum_i T_i}\sum_{i,t} \log \pi(y_{i,t} \mid y_{i,<t})\Bigr)

    ``token_logp``: for each text the log-probabilities (T_i,) of its tokens.  The mean of the texts' own perplexities
    is another number.

    Hand-worked: texts with token probabilities (1/2) and (1/8, 1/8): exp((ln 2 + 2 ln 8) / 3) = 2^(7/3) = 5.04.
    """
    if len(token_logp) == 0:
        raise InputError("token_logp is empty: there is no text to score")
    texts = [_logp(t, f"token_logp of text {i}", 1) for i, t in enumerate(token_logp)]
    with np.errstate(over="ignore"):
        return float(np.exp(-np.concatenate(texts).mean()))


def named(values: Mapping[str, float], names: Sequence[str], what: str) -> list[float]:
    """The values of exactly ``names``, each in [0, 1], in that order; InputError for a missing, unknown or invalid one."""
    missing = [n for n in names if n not in values]
    if missing:
        raise InputError(f"{what} needs {len(names)} values and lacks {', '.join(missing)}")
    unknown = [n for n in values if n not in names]
    if unknown:
        raise InputError(f"{what} knows no {', '.join(unknown)}; its values are {', '.join(names)}")
    return [share(values[n], n) for n in names]


def share(value: float, name: str) -> float:
    """``value`` if it lies in [0, 1]; NaN does not."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} must lie between 0 and 1, not {value}")
    return float(value)


def _numbers(values: ArrayLike, name: str, ndim: int) -> Array:
    form = "one number an example" if ndim == 1 else "one row of numbers an example, all of one length"
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be {form}") from None
    if array.ndim != ndim:
        raise InputError(f"{name} must be {form}, not of shape {array.shape}")
    if array.size == 0:
        raise InputError(f"{name} is empty: there is nothing to score")
    _refuse(np.isnan(array), name, "is NaN; find out why before scoring, or leave it out of every list")
    return array


def _logp(values: ArrayLike, name: str, ndim: int) -> Array:
    array = _numbers(values, name, ndim)
    _refuse(array > ROUNDING, name, "is above 0: pass log-probabilities, not probabilities or losses")
    return array


def _ratio(values: ArrayLike) -> Array:
    array = _numbers(values, "truth ratio", 1)
    _refuse(array < 0, "truth ratio", "is negative: pass ratios, not their logarithms")
    return array


def _refuse(bad: NDArray[np.bool_], name: str, problem: str) -> None:
    if bad.any():
        raise InputError(f"{name}: entry {int(np.argwhere(bad)[0][0])} {problem}")


def _pair(right: ArrayLike, wrong: ArrayLike, right_name: str, wrong_name: str) -> tuple[Array, Array]:
    right_logp, wrong_logp = _logp(right, right_name, 1), _logp(wrong, wrong_name, 2)
    if len(right_logp) != len(wrong_logp):
        raise InputError(f"{right_name} has {len(right_logp)} examples, {wrong_name} has {len(wrong_logp)}")
    return right_logp, wrong_logp


def _hits(hits: Sequence[ArrayLike], *, drop_last: bool) -> list[NDArray[np.bool_]]:
    if len(hits) == 0:
        raise InputError("hits is empty: there is nothing to score")
    out = []
    for i, values in enumerate(hits):
        array = np.asarray(values)
        if array.ndim != 1 or not np.isin(array, (0, 1)).all():
            raise InputError(f"hits: example {i} must be one true or false a token")
        array = array.astype(bool)[: len(array) - drop_last]
        if len(array) == 0:
            raise InputError(f"hits: example {i} has no token{' but its last' if drop_last else ''} to score")
        out.append(array)
    return out


def _choices(logp: ArrayLike, right: ArrayLike) -> tuple[Array, NDArray[Any]]:
    scores, index = _logp(logp, "logp", 2), np.asarray(right)
    if index.shape != (len(scores),) or not np.issubdtype(index.dtype, np.integer):
        raise InputError(f"right must be one option number an example, {len(scores)} whole numbers")
    _refuse((index < 0) | (index >= scores.shape[1]), "right", f"is no option number from 0 to {scores.shape[1] - 1}")
    _refuse(np.isinf(scores.max(1)), "logp", "gives every option probability 0")
    return scores, index
