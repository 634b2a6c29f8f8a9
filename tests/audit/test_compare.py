"""Findings from hand-made tables: shares left, what the control changes, membership on both sides, what was kept."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.audit import compare, policy, verdict
from expunge.audit.compared import Compared
from expunge.audit.material import Material, Rewritten
from expunge.data.example import Row
from expunge.evaluation.table import Collected, Generated, Scored

N = 12
POLICY = policy.read()
WORDS = [f"word{i} lives in place{i}" for i in range(N)]


def scored(part: str, i: int, probability: float, variant: str = "answer") -> Scored:
    logp = np.log(np.full(4, probability, np.float32))
    hit = np.full(4, probability > 0.5)
    return Scored(part, i, variant, WORDS[i % N], logp, logp - 1, np.ones(4, np.float32), hit)


def model(
    forget: float, wrong: float = 0.1, retain: float = 0.9, holdout: float = 0.2, says: bool = False
) -> Collected:
    """A model that gives forget answers about the probability ``forget``, wrong ones ``wrong``, and so on.

    ``says``: whether it answers the forget questions right.
    """
    spread = np.linspace(0.97, 1.03, N)
    scores = [scored("forget", i, min(0.99, forget * spread[i])) for i in range(N)]
    scores += [scored("forget", i, min(0.99, wrong * spread[i]), "wrong0") for i in range(N)]
    scores += [scored("retain", i, min(0.99, retain * spread[i])) for i in range(N) if retain]
    scores += [scored("general", i, 0.5) for i in range(4)]
    scores += [scored("holdout", i, holdout * spread[i]) for i in range(N)]
    answers = [Generated("forget", i, "answer", WORDS[i], WORDS[i] if says else "nothing") for i in range(N)]
    answers += [Generated("retain", i, "answer", WORDS[i], WORDS[i]) for i in range(N)]
    return Collected(tuple(scores), tuple(answers))


def material(holdout: bool = True, retain: bool = True) -> Material:
    rows = [Row(({"role": "user", "content": "q"},), w) for w in WORDS]
    rewritten = [Rewritten(None, ("wrong",)) for _ in rows]
    return Material(rows, [], rows if retain else [], [], rows if holdout else [], rewritten, {})


def compared(tables: dict[str, Collected], control: str | None = None, **rows: bool) -> Compared:
    return compare.compare(tables, {}, material(**rows), POLICY, control=control)


def of(found: Compared, name: str) -> verdict.Finding:
    return next(f for f in found.findings if f.name == name)


TARGET = model(0.9, 0.02, says=True)


def test_the_share_left_above_the_control():
    """(0.5 - 0.1) / (0.9 - 0.1) is a half."""
    found = compared({"target": TARGET, "unlearned": model(0.5), "control": model(0.1)}, "retrained")
    share = of(found, "remaining/probability")
    assert share.value == pytest.approx(0.5, abs=0.01) and share.n == N and found.basis is None
    assert of(found, "remaining/recall").value == pytest.approx(0)
    preference = of(found, "remaining/preference")
    expected = (0.5 / 0.6 - 0.5) / (0.9 / 0.92 - 0.5)
    assert preference.value == pytest.approx(expected, abs=0.01)


def test_without_a_control_ignorance_is_what_the_target_says_of_wrong_answers():
    found = compared({"target": TARGET, "unlearned": model(0.46)})
    assert of(found, "remaining/probability").value == pytest.approx((0.46 - 0.02) / (0.9 - 0.02), abs=0.01)
    assert any("no such model" in line or "none was given" in line for line in found.not_concluded)
    assert all(not f.decides for f in found.findings if f.family == "membership")
    assert not of(found, "remaining/preference").decides and of(found, "remaining/probability").decides
    beside = compared({"target": TARGET, "unlearned": model(0.46), "control": model(0.1)}, "base")
    assert of(beside, "remaining/preference").decides


def test_a_target_that_knows_nothing_and_a_control_that_knows_are_no_basis():
    nothing = compared(
        {"target": model(0.1, 0.1), "unlearned": model(0.1, 0.1), "control": model(0.1, 0.1)}, "retrained"
    )
    assert nothing.basis and "the target does not know" in nothing.basis
    knowing = compared({"target": TARGET, "unlearned": model(0.1), "control": model(0.7, 0.02, says=True)}, "base")
    assert knowing.basis and "the control (base) knows the forget rows" in knowing.basis


def test_membership_is_the_distance_from_the_control_on_both_sides():
    """Forget rows as likely as holdout rows under the control; less likely under a model that forgot too much."""
    tables = {"target": TARGET, "unlearned": model(0.05, holdout=0.2), "control": model(0.2, holdout=0.2)}
    loss = of(compared(tables, "retrained"), "membership/loss")
    assert loss.value == pytest.approx(-0.5, abs=0.01) and loss.decides
    known = tables | {"unlearned": model(0.9, holdout=0.2)}
    assert of(compared(known, "retrained"), "membership/loss").value == pytest.approx(0.5, abs=0.01)
    assert {m["non_members"] for m in compared(tables, "retrained").membership} == {"holdout"}
    beside = compared(tables, "retrained", holdout=False)
    assert {m["non_members"] for m in beside.membership} == {"wrong answers"}


def test_what_was_kept():
    tables = {"target": TARGET, "unlearned": model(0.1, retain=0.45), "control": model(0.1)}
    found = compared(tables, "retrained")
    assert of(found, "kept/retain/probability").value == pytest.approx(0.5, abs=0.01)
    assert not of(found, "kept/general/probability").decides
    without = compared({r: model(0.9 if r == "target" else 0.1, retain=0) for r in tables}, "retrained", retain=False)
    assert of(without, "kept/general/probability").decides and not any(
        f.name.startswith("kept/retain") for f in without.findings
    )


def test_a_difference_is_paired_and_tested_for_equivalence():
    found = compared({"target": TARGET, "unlearned": model(0.12), "control": model(0.1)}, "retrained")
    line = next(d for d in found.differences if (d["name"], d["from"]) == ("probability", "control"))
    assert line["value"] == pytest.approx(0.02, abs=1e-3) and line["equivalent"] and line["high"] - line["low"] < 0.01
    far = next(d for d in found.differences if (d["name"], d["from"]) == ("probability", "target"))
    assert far["value"] == pytest.approx(-0.78, abs=0.01) and not far["equivalent"]


BASE = model(0.06, 0.03, holdout=0.06)  # preference 0.67, as a model that was taught none of the rows
RETRAINED = model(0.036, 0.012, holdout=0.036)  # 0.75: taught the other rows


@pytest.mark.parametrize(("control", "kind"), [(BASE, "base"), (RETRAINED, "retrained")])
@pytest.mark.parametrize(
    ("unlearned", "word"),
    [
        (RETRAINED, "forgotten"),
        (TARGET, "not forgotten"),
        (model(0.036, 0.012, retain=0.3, holdout=0.036), "model damaged"),
    ],
)
def test_the_verdict_of_a_retrained_model_does_not_hang_on_the_control(control, kind, unlearned, word):
    found = compared({"target": TARGET, "unlearned": unlearned, "control": control}, kind)
    assert verdict.decide(found.findings, POLICY, basis=found.basis).word == word


@pytest.mark.parametrize(
    ("control", "kind", "word"), [(BASE, "base", "partly"), (RETRAINED, "retrained", "not forgotten")]
)
def test_a_preference_as_strong_as_the_targets_counts_with_either(control, kind, word):
    found = compared({"target": TARGET, "unlearned": model(0.036, 0.001, holdout=0.036), "control": control}, kind)
    assert verdict.decide(found.findings, POLICY, basis=found.basis).word == word


def test_against_a_base_what_training_on_the_other_rows_changes_counts_from_the_second_limit():
    tables = {"target": TARGET, "unlearned": RETRAINED, "control": BASE}
    by_base, by_retrained = (compared(tables, kind) for kind in ("base", "retrained"))
    assert of(by_base, "remaining/preference").value > POLICY.remaining  # what a retrained model is above a base
    for name, base, retrained in (
        ("remaining/preference", 0.5, 0.2), ("membership/loss", 0.3, 0.15), ("remaining/probability", 0.2, 0.2),
    ):  # fmt: skip
        assert (of(by_base, name).limit, of(by_retrained, name).limit) == (base, retrained)
    assert any("second limit" in line for line in by_base.not_concluded)
    required = POLICY.model_copy(update={"require": ("remaining", "equivalence")})
    material_ = material()
    decides = {
        kind: {f.decides for f in compare.compare(tables, {}, material_, required, control=kind).findings
               if f.family == "equivalence"} for kind in ("base", "retrained")
    }  # fmt: skip
    assert decides == {"base": {False}, "retrained": {True}}
