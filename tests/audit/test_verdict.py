"""The verdict from findings alone: each word, and what each step of the rule changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from expunge.audit import policy
from expunge.audit.verdict import Finding, decide, finding, needed, reached
from expunge.stats import of_row_means

POLICY = policy.read()


def of(name: str, value: float, spread: float = 0.02, n: int = 40, **changes: object) -> Finding:
    """A finding whose values lie around ``value``; what it is about is in its name."""
    family = name.split("/")[0]
    rng = np.random.default_rng(len(name))
    rows = rng.normal(size=n)
    rows = value + spread * np.sqrt(n) * (rows - rows.mean()) / rows.std()
    limits = {
        "remaining": ("gone", 0.2, 0.5, "lower"), "kept": ("kept", 0.9, 0.6, "higher"),
        "fluency": ("kept", 0.8, 0.5, "higher"),
        "back": ("back", 0.2, 0.5, "lower"), "membership": ("gone", 0.15, 0.3, "near"),
    }  # fmt: skip
    question, limit, severe, better = limits[family]
    made = finding(
        name, question, family, of_row_means(lambda x: x, rows), POLICY, limit=limit, severe=severe, better=better,
        meaning=name,
    )  # fmt: skip
    return replace(made, **changes)


GOOD = [
    of("remaining/recall", 0.05),
    of("remaining/probability", 0.0),
    of("kept/retain/probability", 0.98),
    of("back/toy", 0.02),
]
WITHOUT = {
    "forgotten": [],
    "not forgotten": [of("remaining/extraction", 0.8)],
    "partly": [of("remaining/extraction", 0.3)],
    "model damaged": [of("kept/retain/recall", 0.3), of("remaining/extraction", 0.8)],
}


@pytest.mark.parametrize("word", WITHOUT)
def test_each_word(word):
    found = decide([*GOOD, *WITHOUT[word]], POLICY)
    assert found.word == word
    if WITHOUT[word]:
        assert WITHOUT[word][0].name in found.sentence and f"{WITHOUT[word][0].value:.2f}" in found.sentence


def test_a_basis_that_is_lacking_comes_first():
    found = decide([*GOOD, *WITHOUT["model damaged"]], POLICY, basis="the target knows nothing")
    assert (found.word, found.sentence) == ("cannot be told", "the target knows nothing")


def test_an_attack_decides_by_whether_it_trains():
    assert decide([*GOOD, of("back/ask", 0.9, hidden=True)], POLICY).word == "not forgotten"
    assert decide([*GOOD, of("back/train", 0.9)], POLICY).word == "partly"
    assert decide([*GOOD, of("back/ask", 0.35, hidden=True)], POLICY).word == "partly"


def test_what_does_not_decide_changes_nothing():
    assert (
        decide([*GOOD, of("remaining/x", 0.9, decides=False), of("membership/x", 0.5, decides=False)], POLICY).word
        == "forgotten"
    )


@pytest.mark.parametrize("side", [1, -1])
def test_membership_is_two_sided(side):
    found = decide([*GOOD, of("membership/loss", side * 0.25)], POLICY)
    assert found.word == "partly" and "membership/loss" in found.sentence
    assert decide([*GOOD, of("membership/loss", side * 0.05)], POLICY).word == "forgotten"


def test_too_few_rows_cannot_tell():
    wide = of("remaining/extraction", 0.15, spread=0.25, n=8)
    found = decide([*GOOD, wide], POLICY)
    assert found.word == "cannot be told" and "about" in found.sentence and "rows would tell" in found.sentence
    rows = needed(wide)
    assert rows > wide.n
    half = (wide.high - wide.value) * (wide.n / rows) ** 0.5
    assert half <= 0.2 - wide.value + 1e-9  # that many rows have an interval that ends at the limit
    beyond = of("remaining/extraction", 0.25, spread=0.25, n=8)
    assert decide([*GOOD, beyond], POLICY).word == "partly"


def test_an_unclear_figure_beside_a_clear_one_is_enough_unless_it_reaches_the_second_limit():
    near = of("kept/retain/recall", 0.95, spread=0.06)
    assert near.low < 0.9 and near.low > 0.6
    assert decide([*GOOD, near], POLICY).word == "forgotten"
    alone = [f for f in GOOD if f.family != "kept"]
    assert decide([*alone, near], POLICY).word == "cannot be told"
    assert decide([*GOOD, of("kept/retain/recall", 0.95, spread=0.3)], POLICY).word == "cannot be told"


def test_what_the_policy_requires_has_to_be_there():
    without = [f for f in GOOD if f.family != "kept"]
    assert decide(without, POLICY).word == "cannot be told" and "kept" in decide(without, POLICY).sentence
    lax = POLICY.model_copy(update={"require": ("remaining",)})
    assert decide(without, lax).word == "forgotten"


def test_a_claim_about_one_of_many_is_corrected():
    """p = 0.01 of one attack is a claim; of one among ten it is none."""
    one = replace(of("back/x", 0.21), p_limit=0.01, p_severe=1.0)
    others = [replace(of(f"back/{k}", 0.05), p_limit=1.0, p_severe=1.0) for k in range(9)]
    assert decide([*GOOD[:3], one], POLICY).word == "partly"
    assert decide([*GOOD[:3], one, *others], POLICY).word == "forgotten"


def test_reached():
    assert reached("forgotten", "forgotten") and reached("forgotten", "partly") and reached("partly", "partly")
    assert not any(reached(w, "forgotten") for w in ("partly", "not forgotten", "model damaged", "cannot be told"))
    assert reached("not forgotten", None)
