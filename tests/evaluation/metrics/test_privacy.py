"""Membership scores by hand, and the published AUCs and PrivLeak from the published per-example scores.

The logs are OpenUnlearning's and lie in ``tests/fixtures`` (its SOURCES.md says where they come from).
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from golden import MODELS, digits, log, summary
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import InputError
from expunge.evaluation.metrics import privacy
from expunge.stats import harmonic_mean

RETRAINED = {"01": "99", "05": "95", "10": "90"}
SCORES = ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm")  # and the reference, for the full model only
NAN = float("nan")


def scores(model, name, part):
    return np.array(log(model)[f"mia_{name}"][part]["score"])


def test_scores_by_hand():
    """Two texts: log-probabilities (-1, -2, -3, -4, -5) and (-2,)."""
    logp = [[-1.0, -2.0, -3.0, -4.0, -5.0], [-2.0]]
    np.testing.assert_allclose(privacy.loss_score(logp), [3, 2])
    np.testing.assert_allclose(privacy.min_k(logp), [4.5, 2])  # the two lowest of five; at least one token
    np.testing.assert_allclose(privacy.reference_score(logp, [1, 2.5]), [2, -0.5])
    np.testing.assert_allclose(privacy.grad_norm_score([3, 0]), [3, 0])
    np.testing.assert_allclose(privacy.zlib_score(logp[:1], ["aaaaaaaa"]), [3 / 11])
    size = len(zlib.compress("ü".encode()))
    np.testing.assert_allclose(privacy.zlib_score(logp, ["aaaaaaaa", "ü"]), [3 / 11, 2 / size])


def test_min_k_plus_plus_by_hand():
    """(-1 + 3) / 2 = 1, (-2 + 3) / 1 = 1, (-5 + 3) / 2 = -1, (-4 + 2) / 4 = -0.5, 0: the two lowest are -1 and -0.5."""
    logp, mean, deviation = [[-1.0, -2, -5, -4, -3]], [[-3.0, -3, -3, -2, -3]], [[2.0, 1, 2, 4, 1]]
    np.testing.assert_allclose(privacy.min_k_plus_plus(logp, mean, deviation), [0.75])


def test_min_k_plus_plus_of_two_words():
    """π = (3/4, 1/4): the words lie 1/√3 above and √3 below the mean, whatever the unit of the logarithm."""
    p = np.array([3 / 4, 1 / 4])
    mean = (p * np.log(p)).sum()
    deviation = math.sqrt((p * (np.log(p) - mean) ** 2).sum())
    texts = [[math.log(3 / 4)], [math.log(1 / 4)]]
    got = privacy.min_k_plus_plus(texts, [[mean]] * 2, [[deviation]] * 2)
    np.testing.assert_allclose(got, [-1 / math.sqrt(3), math.sqrt(3)])


def test_min_k_plus_plus_of_a_sure_model_is_not_rounding():
    """A deviation below 0.001 counts as that: -(-2e-6 + 1e-6) / 1e-3."""
    np.testing.assert_allclose(privacy.min_k_plus_plus([[-2e-6]], [[-1e-6]], [[0.0]]), [1e-3])


@given(
    st.lists(st.lists(st.floats(-20, 0), min_size=1, max_size=9), min_size=1, max_size=4),
    st.sampled_from([0.1, 0.2, 0.4, 1.0]),
)
def test_min_k_by_taking_out_the_lowest_one_by_one(texts, k):
    for text, got in zip(texts, privacy.min_k(texts, k=k), strict=True):
        left, lowest = list(text), []
        while not lowest or len(lowest) + 1 <= k * len(text):
            lowest.append(left.pop(left.index(min(left))))
        assert got == pytest.approx(-sum(lowest) / len(lowest))
    ones, noughts = [[1.0] * len(t) for t in texts], [[0.0] * len(t) for t in texts]
    np.testing.assert_allclose(privacy.min_k_plus_plus(texts, noughts, ones, k=k), privacy.min_k(texts, k=k))
    np.testing.assert_allclose(privacy.min_k(texts, k=1.0), privacy.loss_score(texts), atol=1e-12)


def test_every_score_is_higher_for_a_text_the_model_does_not_know():
    """One text under a model that knows it and one that does not, next to the same vocabulary mean and deviation."""
    known, unknown = [[-0.1, -0.2, -0.3]], [[-4.0, -5.0, -6.0]]
    mean, deviation = [[-2.0] * 3], [[1.0] * 3]
    for f in (
        privacy.loss_score,
        privacy.min_k,
        lambda t: privacy.zlib_score(t, ["a text"]),
        lambda t: privacy.reference_score(t, [3.0]),
        lambda t: privacy.min_k_plus_plus(t, mean, deviation),
    ):
        assert f(known)[0] < f(unknown)[0]


def test_an_attack_that_sees_everything():
    attack = privacy.attack(np.arange(20), np.arange(100, 130))
    assert (attack.auc, attack.tpr_at_1_percent, attack.n_members, attack.n_non_members) == (1.0, 1.0, 20, 30)
    assert (attack.auc_interval.low, attack.auc_interval.high) == (pytest.approx(0.025 ** (1 / 20)), 1)
    blind = privacy.attack(np.arange(20), np.arange(20))
    assert blind.auc == 0.5 and blind.auc_interval.low < 0.5 < blind.auc_interval.high
    assert blind.tpr_at_1_percent == 0
    over = privacy.attack(np.arange(100, 120), np.arange(30))  # over-forgotten
    assert over.auc == 0


def test_an_attack_by_hand():
    """The pairs 1<2, 1<3, 2=2, 2<3; below 2, the lowest non-member, lies one member of two."""
    attack = privacy.attack([1, 2], [2, 3])
    assert (attack.auc, attack.tpr_at_1_percent, attack.n_members, attack.n_non_members) == (0.875, 0.5, 2, 2)


def test_an_attacks_interval_has_the_width_of_hanley_and_mcneils():
    """Their closed form of the AUC's variance for negative exponential scores, 1982, doi:10.1148/radiology.143.1.7063747."""
    rng = np.random.default_rng(0)
    n, m = 150, 250
    attack = privacy.attack(rng.exponential(size=n), 3 * rng.exponential(size=m))
    a = 3 / 4  # P(3 E' > E)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m))
    width = attack.auc_interval.high - attack.auc_interval.low
    assert width == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert attack.auc_interval.low < attack.auc < attack.auc_interval.high


def test_privleak_by_hand():
    assert privacy.privleak(1.0, 0.5) == -100 and privacy.privleak(0.4, 0.4) == 0
    assert privacy.privleak(0.2, 0.6) == pytest.approx(100)
    assert privacy.privleak(0, 0.75) == 300
    assert privacy.privleak(1.0, 0.5, compat=True) == pytest.approx(-50 / (0.5 + 1e-10), rel=1e-14)
    for compat in (False, True):
        with pytest.raises(InputError, match="divides by 0"):
            privacy.privleak(0.5, 1.0, compat=compat)
    with pytest.raises(TypeError):
        privacy.privleak(0.5)  # a retrained model's AUC is not guessed


def test_similarity_by_hand():
    assert privacy.similarity(0.5, 0.4) == pytest.approx(0.75) == pytest.approx(privacy.similarity(0.3, 0.4))
    assert privacy.similarity(0.4, 0.4) == 1 and privacy.similarity(1.0, 0.4) == 0
    with pytest.raises(InputError, match="divides by 0"):
        privacy.similarity(0.5, 0)


@pytest.mark.parametrize("f", [privacy.privleak, privacy.similarity])
def test_an_auc_lies_between_0_and_1(f):
    for pair, model in (((1.2, 0.5), "unlearned"), ((NAN, 0.5), "unlearned"), ((0.5, -0.1), "retrained")):
        with pytest.raises(InputError, match=f"{model} model must lie between 0 and 1"):
            f(*pair)


def test_bad_input_is_told_with_its_place():
    one, two = [[-1.0, -2.0]], [[-1.0], [-2.0]]
    nan, loss = [[-1.0], [NAN]], [[-1.0], [-1.0, 0.5]]
    for f in (
        privacy.loss_score,
        privacy.min_k,
        lambda t: privacy.zlib_score(t, ["", ""]),
        lambda t: privacy.reference_score(t, [1, 1]),
        lambda t: privacy.min_k_plus_plus(t, two, two),
    ):
        for bad, why in (
            (nan, "text 1: entry 0 is NaN"),
            (loss, r"text 1: entry 1 is 0\.5, but a log-probability is at most 0"),
            ([[], [-1.0]], "text 0: empty"),
            ([], "no text to score"),
        ):
            with pytest.raises(InputError, match=why):
                f(bad)
    for call, why in (
        (lambda: privacy.zlib_score(two, ["one"]), "2 texts have 1 strings"),
        (lambda: privacy.reference_score(two, [1.0]), "2 texts have 1 reference values"),
        (lambda: privacy.reference_score(two, [1.0, NAN]), "reference's mean NLL: entry 1 is NaN"),
        (lambda: privacy.min_k_plus_plus(two, one, two), "2 texts have 1 means"),
        (lambda: privacy.min_k_plus_plus(two, two, one), "2 texts have 1 deviations"),
        (lambda: privacy.min_k_plus_plus(one, [[0.0]], [[1.0, 1.0]]), "text 0 has 2 tokens, but 1 means and 2 dev"),
        (lambda: privacy.min_k_plus_plus(one, one, [[1.0]]), "text 0 has 2 tokens, but 2 means and 1 dev"),
        (lambda: privacy.min_k_plus_plus(one, one, one), "deviation of text 0: entry 0 is negative"),
        (lambda: privacy.min_k_plus_plus(two, nan, two), "mean of text 1: entry 0 is NaN"),
        (lambda: privacy.min_k(one, k=0), "share of the tokens"),
        (lambda: privacy.min_k(one, k=40), "share of the tokens"),
        (lambda: privacy.grad_norm_score([1.0, -1.0]), "gradient norms: entry 1 is negative"),
        (lambda: privacy.grad_norm_score([]), "the gradient norms: empty"),
        (lambda: privacy.attack([], [1.0]), "forget set's scores"),
        (lambda: privacy.attack([1.0], [NAN]), "holdout's scores: entry 0 is NaN"),
    ):
        with pytest.raises(InputError, match=why):
            call()


@pytest.mark.parametrize("model", MODELS)
def test_published_aucs(model):
    """From the per-example scores of both sets: every printed digit, of all 33."""
    names = [k.removeprefix("mia_") for k in log(model) if k.startswith("mia_")]
    assert set(names) == {*SCORES, *(["reference"] if model.startswith("full") else [])}
    for name in names:
        attack = privacy.attack(*(scores(model, name, part) for part in ("forget", "holdout")))
        assert attack.auc == digits(log(model)[f"mia_{name}"]["auc"])
        assert attack.auc == digits(summary(model)[f"mia_{name}"])
        assert attack.auc_interval.low <= attack.auc <= attack.auc_interval.high


@pytest.mark.parametrize("model", MODELS)
def test_published_privleak(model):
    """From the printed AUCs to every printed digit, and from the per-example Min-K scores.

    The retrained models' own took 1/2 for want of another.  The second lies as far off as the last bit of an AUC moves it:
    theirs is a sum of trapezoids, and 1 - A loses nothing of its error.
    """
    split = model.removeprefix("full")
    zero = f"retain{RETRAINED[split]}" if split in RETRAINED else None

    def area(of):
        return privacy.attack(scores(of, "min_k", "forget"), scores(of, "min_k", "holdout")).auc

    pair = area(model), area(zero) if zero else 0.5
    published = summary(model)["privleak"]
    assert published == log(model)["privleak"]["agg_value"]
    printed = [summary(m)["mia_min_k"] if m else 0.5 for m in (model, zero)]
    assert privacy.privleak(*printed, compat=True) == published
    assert privacy.privleak(*pair, compat=True) == pytest.approx(published, rel=0, abs=3e-14)
    ours = privacy.privleak(*pair)
    assert ours == pytest.approx(published, rel=3e-10, abs=0) and ours != digits(published)


@pytest.mark.parametrize("model", MODELS)
def test_published_zlib_scores_follow_from_losses_and_texts(model):
    """The logs hold a loss and a ground truth for each forget answer: their scores, to every digit."""
    texts = log(model)["forget_Q_A_ROUGE"]["ground_truth"]
    loss = scores(model, "loss", "forget")
    got = privacy.zlib_score([[-v] for v in loss], texts)
    np.testing.assert_allclose(got, scores(model, "zlib", "forget"), rtol=1e-15)


@pytest.mark.parametrize("split", RETRAINED)
@pytest.mark.parametrize("part", ["forget", "holdout"])
def test_published_reference_scores_are_near_the_retrained_models(split, part):
    """Their reference is the retrained model, in another run: each score within 0.06, the mean within 0.006."""
    full, retrained = (scores(m, "loss", part) for m in (f"full{split}", f"retain{RETRAINED[split]}"))
    got, published = privacy.reference_score([[-v] for v in full], retrained), scores(f"full{split}", "reference", part)
    np.testing.assert_allclose(got, published, atol=0.06)
    assert got.mean() == pytest.approx(published.mean(), abs=0.006)


def test_published_privacy_is_0_for_the_target_and_1_for_the_retrained_model():
    """OpenUnlearning's table for forget10 has 0 for the full model and 1 for retain90: the mean of four similarities."""

    def published(model):
        return [summary(model)[f"mia_{n}"] for n in ("loss", "zlib", "min_k", "min_k_plus_plus")]

    for model, value in (("full10", 0), ("retain90", 1)):
        pairs = zip(published(model), published("retain90"), strict=True)
        assert harmonic_mean([privacy.similarity(*pair) for pair in pairs]) == value
