"""The Vendi score by hand, against its definition, and by property; what is added to a collection; the harmonic mean."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import InputError
from expunge.reveal.diversity import added_diversity, diversity, harmonic, unit, vendi_score

NAN = float("nan")


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def defined(embeddings: np.ndarray) -> float:
    """The Vendi score word for word: the singular values of E / √n, squared, are the eigenvalues of K / n."""
    rows = np.array([row / math.sqrt(sum(x * x for x in row)) for row in embeddings])
    values = np.linalg.svd(rows / math.sqrt(len(rows)), compute_uv=False) ** 2
    return math.exp(-sum(v * math.log(v) for v in values if v > 1e-14))


def test_needs_no_torch():
    code = "import sys, expunge.reveal.diversity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_identical_is_one_and_orthonormal_is_n():
    assert vendi_score([[3.0, 4.0]] * 6) == pytest.approx(1)
    assert vendi_score(np.eye(6)) == pytest.approx(6)
    assert vendi_score(np.eye(6)[:4]) == pytest.approx(4)
    assert diversity([[3.0, 4.0]] * 6) == pytest.approx(0, abs=1e-9)
    assert diversity(np.eye(6)) == pytest.approx(1)


def test_two_at_an_angle_by_hand():
    """cos 60° = 1/2: λ = (3/4, 1/4), entropy ln 4 - ¾ ln 3 = 0.5623; opposite ones are λ = (1, 0)."""
    assert vendi_score([[1, 0], [0.5, math.sqrt(0.75)]]) == pytest.approx(4 / 3**0.75)
    assert vendi_score([[1, 0], [-2, 0]]) == pytest.approx(1)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_the_smaller_matrix_gives_the_definitions_score(n, d, seed):
    score = vendi_score(drawn(n, d, seed))
    assert score == pytest.approx(defined(drawn(n, d, seed)))
    assert 1 - 1e-9 <= score <= min(n, d) + 1e-9


@given(st.permutations(range(6)), st.integers(0, 99))
def test_order_and_length_of_rows_do_not_matter(order, seed):
    rows = drawn(6, 4, seed)
    scale = np.linspace(0.1, 9, 6)[:, None]
    assert vendi_score((rows * scale)[list(order)]) == pytest.approx(vendi_score(rows))


@pytest.mark.parametrize("d", [3, 40])
def test_more_dimensions_that_are_zero_change_nothing(d):
    rows = drawn(10, 3)
    assert vendi_score(np.hstack([rows, np.zeros((10, d))])) == pytest.approx(vendi_score(rows))


def test_copies_halve_the_share():
    """Each item twice: the score stays, so it is half of the number of items."""
    rows = np.eye(8)
    assert vendi_score(np.vstack([rows, rows])) == pytest.approx(8)
    mixed = drawn(6, 9)
    assert vendi_score(np.vstack([mixed, mixed])) == pytest.approx(vendi_score(mixed))


def test_a_common_part_hides_diversity_until_it_is_taken_off():
    rows, mean = drawn(20, 384), np.full(384, 2.0)
    assert vendi_score(rows + mean) < 5 < 19 < vendi_score(rows + mean, mean=mean)
    assert vendi_score(rows + mean, mean=mean) == pytest.approx(vendi_score(rows))


def test_unit_by_hand():
    np.testing.assert_allclose(unit([[3, 4]]), [[0.6, 0.8]])
    np.testing.assert_allclose(unit([[3, 4]], mean=[3, 3]), [[0, 1]])


def test_one_response_has_no_diversity():
    assert vendi_score([[2.0, 1.0]]) == pytest.approx(1) and diversity([[2.0, 1.0]]) == 0


def test_added_diversity_by_hand():
    """Two of four known: λ = (1/4, 1/4, 1/2).  At 60° to the one collected: rows (√½ e, √½), cosine ¼ + ½ = 3/4."""
    assert added_diversity(np.eye(4), np.eye(4)[2:]) == pytest.approx((2**1.5 - 1) / 3)
    ours = [[0.5, math.sqrt(0.75)], [0.5, -math.sqrt(0.75)]]  # 120° apart: cosine -1/2
    entropy = -sum(v * math.log(v) for v in (0.5 + 0.125, 0.5 - 0.125))  # cosine -1/4 + 1/2 = 1/4: λ = (1 ± 1/4) / 2
    assert added_diversity(ours, [[1, 0]]) == pytest.approx(math.exp(entropy) - 1)


def test_added_diversity_by_hand_at_another_angle():
    """s = 0.6, cosine 0.36 - 0.64 = -0.28, which becomes 0.4 · -0.28 + 0.6 = 0.488."""
    entropy = -sum(v * math.log(v) for v in (0.744, 0.256))
    assert added_diversity([[0.6, 0.8], [0.6, -0.8]], [[1, 0]]) == pytest.approx(math.exp(entropy) - 1)


def test_the_opposite_of_the_collected_is_not_known():
    ours = [[1.0, 0.0], [0.6, 0.8]]
    assert added_diversity(ours, [[-1, 0]]) == pytest.approx(diversity(ours))


def test_added_to_nothing_is_diversity():
    rows = drawn(7, 5)
    for none in ([], np.empty((0, 5))):
        assert added_diversity(rows, none) == diversity(rows)
    assert added_diversity([[1.0, 0.0]], [[0.0, 1.0]]) == 0


def test_copies_of_the_collected_add_nothing_and_others_everything():
    rows, axes = drawn(9, 30), np.eye(12)
    assert added_diversity(rows[:4] * 3, rows) == pytest.approx(0, abs=1e-6)
    assert added_diversity(axes[:6], axes[6:]) == pytest.approx(1)
    assert added_diversity([axes[0]] * 6, axes[6:]) == pytest.approx(0, abs=1e-9)  # new, and all the same


def test_more_copies_in_a_batch_add_less():
    axes = np.eye(40)
    scores = [added_diversity(axes[k : k + 16], axes[:16]) for k in (0, 4, 8, 12, 16)]
    assert scores[0] < 1e-6 and scores == sorted(scores) and scores[-1] == pytest.approx(1)


def test_the_number_collected_does_not_matter():
    """The docstring's example: of both together the score moves by 0.016 a new response, on ours they are all new."""
    axes = np.eye(17)
    collected = np.tile(axes[16], (500, 1))
    joint = vendi_score(np.vstack([axes[:16], collected])) - vendi_score(collected)
    assert joint == pytest.approx(0.25, abs=0.005) and joint / 16 == pytest.approx(0.016, abs=0.001)
    assert added_diversity(axes[:16], collected) == pytest.approx(1)
    assert added_diversity(axes[:16], collected[:1]) == pytest.approx(1)


def test_new_kinds_can_lower_the_joint_score():
    """The docstring's claim: 64 collected at right angles, four others at right angles to them, each 30 times."""
    axes = np.eye(70)
    new = np.repeat(axes[64:68], 30, axis=0)
    assert vendi_score(np.vstack([new, axes[:64]])) < vendi_score(axes[:64])
    assert added_diversity(new, axes[:64]) > 0


def test_the_mean_is_taken_off_the_collected_too():
    rows, mean = drawn(8, 30), np.full(30, 3.0)
    assert added_diversity(rows[:5] + mean, rows + mean, mean=mean) == pytest.approx(0, abs=1e-6)
    ours = added_diversity(rows[:4] + mean, rows[4:] + mean, mean=mean)
    assert ours == pytest.approx(added_diversity(rows[:4], rows[4:]))


def test_harmonic_by_hand():
    assert harmonic(1, 0.5) == pytest.approx(2 / 3)
    assert harmonic(1, 0.5, weight=0.75) == pytest.approx(0.8)
    assert harmonic(0.5, 1, weight=0.75) == pytest.approx(1 / 1.75)
    assert harmonic(0.3, 0.9, weight=1) == pytest.approx(0.3) and harmonic(0.3, 0.9, weight=0) == pytest.approx(0.9)
    for zero in ((0, 1), (1, 0), (0, 0), (5e-324, 1)):
        assert harmonic(*zero) == 0


@pytest.mark.parametrize("bad", [(-0.1, 1), (1, 1.1), (NAN, 1), (1, NAN), (1, 1, 2), (0.5, 0.5, NAN)])
def test_harmonic_refuses_what_is_no_share(bad):
    with pytest.raises(InputError, match="between 0 and 1"):
        harmonic(*bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "at least one row"),
        ([1.0, 2.0], "at least one row"),
        (np.empty((3, 0)), "at least one row"),
        ([["a"]], "not a table"),
        ([[1.0, 2.0], [1.0]], "not a table"),
        ([[1.0, 2.0], [1.0, NAN]], "row 1 is not finite"),
        ([[1.0, 2.0], [math.inf, 0.0]], "row 1 is not finite"),
        ([[1.0, 2.0], [0.0, 0.0]], "row 1 has no direction"),
        ([[0.0, 0.0]], "row 0 has no direction"),
    ],
)
@pytest.mark.parametrize("score", [vendi_score, diversity, lambda e: added_diversity(e, [[1.0, 1.0]])])
def test_bad_embeddings_are_told(score, bad, message):
    with pytest.raises(InputError, match=message):
        score(bad)


def test_bad_means_and_collections_are_told():
    good = [[1.0, 2.0]]
    for call, message in (
        (lambda: vendi_score(good, mean=[1.0, 2.0]), "row 0 has no direction"),
        (lambda: vendi_score(good, mean=[1.0]), "mean embedding has 1 numbers"),
        (lambda: vendi_score(good, mean=[1.0, NAN]), "mean embedding"),
        (lambda: added_diversity(good, [[1.0, 2.0, 3.0]]), "collected embeddings have 3 numbers"),
        (lambda: added_diversity(good, [[NAN, 2.0]]), "row 0 is not finite"),
    ):
        with pytest.raises(InputError, match=message):
            call()
