"""The scores by hand, against a plain loop, and as bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import InputError
from expunge.evaluation.metrics import scores

SHARES = st.floats(0, 1)


def named(names, values):
    return dict(zip(names, values, strict=True))


def harmonic(values):
    """A plain loop."""
    total = 0.0
    for value in values:
        if value == 0:
            return 0.0
        total += 1 / value
    return len(values) / total


def test_scores_by_hand():
    known = named(scores.MEMORISATION, (0.5, 0.0, 0.2, 0.6))  # 4 / (2 + 1 + 1.25 + 2.5)
    assert float(scores.memorisation(known)) == pytest.approx(4 / 6.75)
    assert float(scores.closeness(0.9, 0.4)) == pytest.approx(1 / 6)
    assert float(scores.closeness(0.1, 0.6)) == pytest.approx(1 / 6), "an AUC counts the same from either side"
    assert float(scores.closeness(1.0, 0.5)) == float(scores.closeness(0.0, 0.5)) == 0
    theirs = named(scores.ATTACKS, (0.5, 0.5, 0.4, 0.5))
    ours = named(scores.ATTACKS, (0.5, 0.75, 0.9, 0.5))  # 1, 1/2, 1/6, 1
    assert float(scores.privacy(ours, theirs)) == pytest.approx(4 / (1 + 2 + 6 + 1))
    assert float(scores.kept_share(0.3, 0.6)) == 0.5 and float(scores.kept_share(0.7, 0.6)) == 1
    assert float(scores.kept_share(0.0, 0.0)) == 1
    assert float(scores.utility(named(scores.UTILITY, (0.5, 1, 0.25)))) == pytest.approx(3 / (2 + 1 + 4))
    assert float(scores.score(named(scores.SCORES, (1, 0.5, 0.25)))) == pytest.approx(3 / 7)
    assert float(scores.score(named(scores.SCORES, (1, 0, 1)))) == 0


def test_a_score_is_of_the_figures_that_there_are():
    assert float(scores.memorisation({"exact_memorisation": 0.5})) == 0.5
    assert float(scores.utility({"probability_kept": 1, "rouge_kept": 0.5})) == pytest.approx(2 / 3)


@given(st.tuples(*[SHARES] * 4), st.tuples(*[SHARES] * 4), st.tuples(*[SHARES] * 3))
def test_scores_are_shares_and_what_a_loop_gives(known, aucs, kept):
    theirs = named(scores.ATTACKS, aucs)
    ours = named(scores.ATTACKS, known)
    made = {
        "memorisation": scores.memorisation(named(scores.MEMORISATION, known)),
        "privacy": scores.privacy(ours, theirs),
        "utility": scores.utility(named(scores.UTILITY, kept)),
    }
    close = [1 - min(abs(u - r) / max(r, 1 - r), 1) for u, r in zip(known, aucs, strict=True)]
    wanted = [harmonic([1 - v for v in known]), harmonic(close), harmonic(kept)]
    assert [float(v) for v in made.values()] == pytest.approx(wanted, abs=1e-9)
    assert 0 <= float(scores.score(made)) <= 1


def test_arrays_are_scored_entry_by_entry():
    rng = np.random.default_rng(0)
    known = named(scores.MEMORISATION, rng.random((4, 7)))
    alone = [float(scores.memorisation({k: v[i] for k, v in known.items()})) for i in range(7)]
    assert scores.memorisation(known) == pytest.approx(alone)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"extraction_strength must lie between 0 and 1, not 1\.5"):
        scores.memorisation({"extraction_strength": 1.5})
    with pytest.raises(InputError, match="memorisation knows no perplexity"):
        scores.memorisation({"perplexity": 0.5})
    with pytest.raises(InputError, match="utility has nothing to be made of"):
        scores.utility({})
    with pytest.raises(InputError, match="the same attacks"):
        scores.privacy({"loss": 0.5}, {"zlib": 0.5})
    for two in itertools.combinations(scores.SCORES, 2):
        with pytest.raises(InputError, match="is missing"):
            scores.score(dict.fromkeys(two, 0.5))
