"""Which attacks are chosen, what each lacks, and what is said of curves: recovery, excess, the strength of half."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.attacks.attack import Attack, Point, Subject
from expunge.attacks.registry import ATTACKS
from expunge.audit import attacking, policy, settings
from expunge.data.example import Row
from expunge.errors import InputError

ROWS = 8


def attack(name: str = "toy", family: str = "relearning", **more: object) -> Attack:
    return Attack(name, family, "s", lambda *_: [], unit="steps", **more)  # type: ignore[arg-type]


def flat(value: float) -> np.ndarray:
    return np.full(ROWS, value) + np.linspace(-0.01, 0.01, ROWS)


def chosen(names: str):
    return attacking.chosen(settings.Audit(model="m", target="t", forget="f", attacks=names))


def test_groups_and_names():
    assert chosen("none") == [] and chosen("all") == list(ATTACKS.values())
    quick = chosen("quick")
    assert quick and not any(a.trains for a in quick) and {a.name for a in quick} < set(ATTACKS)
    assert all(any(a.name.startswith(c) for a in quick) for c in attacking.CHEAP)  # none of the names is out of date
    first, second = list(ATTACKS)[:2]
    assert [a.name for a in chosen(f"{second}, {first},{second}")] == [second, first]
    with pytest.raises(InputError, match="did you mean 'pruning'"):
        chosen("prunning")


def test_what_an_attack_lacks():
    subject = Subject(None, None, [Row("q", "a")])
    assert attacking.missing(attack(needs=("known",)), subject) == ["known"]
    assert attacking.missing(attack(needs=("retrained", "known")), subject) == ["retrained", "known"]
    assert attacking.missing(attack(), subject) == []
    told = attacking.carried_out([attack(needs=("retrained", "known"))], subject, lambda _: flat(0), lambda _: None)
    assert list(told.values()) == ["it needs a retrained model (--retrained)"]
    assert attacking.needs([attack(trains=True)], "known") and not attacking.needs([attack()], "known")


def test_recovery_excess_and_half():
    """From 0.1 of 0.9 to 0.3 and 0.5: a quarter and a half; the control gains a quarter as well."""
    points = {
        "unlearned": [Point(4, "4", flat(0.3)), Point(8, "8", flat(0.5))],
        "control": [Point(4, "4", flat(0.2)), Point(8, "8", flat(0.3))],
    }
    knows = {role: {"probability": flat(v), "asked": flat(0)} for role, v in
             (("target", 0.9), ("unlearned", 0.1), ("control", 0.1))}  # fmt: skip
    said, findings = attacking.summarised([attacking.Attacked(attack(trains=True), points)], knows, policy.read(), 0)
    assert said[0]["recovery"]["value"] == pytest.approx(0.5) and said[0]["excess"]["value"] == pytest.approx(0.25)
    assert said[0]["control_recovery"]["value"] == pytest.approx(0.25)
    assert said[0]["half"] == pytest.approx(8) and said[0]["control_half"] is None
    assert [p["control"] for p in said[0]["curve"]] == pytest.approx([0.2, 0.3])
    assert findings[0].value == pytest.approx(0.25) and not findings[0].hidden
    alone, found = attacking.summarised(
        [attacking.Attacked(attack(), {"unlearned": points["unlearned"]})], knows, policy.read(), 0
    )
    assert alone[0]["excess"] is None and found[0].value == pytest.approx(0.5) and found[0].hidden


def test_what_needs_the_target_decides_beside_a_control_alone():
    """Half of the way back to the target brings back half of what any model lacks."""
    points = {"unlearned": [Point(0.5, "50 %", flat(0.5))]}
    knows = {role: {"probability": flat(v)} for role, v in (("target", 0.9), ("unlearned", 0.1), ("control", 0.1))}
    merging = ATTACKS["merging"]
    _, found = attacking.summarised([attacking.Attacked(merging, points)], knows, policy.read(), 0)
    assert found[0].value == pytest.approx(0.5) and not found[0].decides
    beside = points | {"control": [Point(0.5, "50 %", flat(0.5))]}
    _, found = attacking.summarised([attacking.Attacked(merging, beside)], knows, policy.read(), 0)
    assert found[0].value == pytest.approx(0, abs=0.01) and found[0].decides


def test_an_attack_with_a_figure_of_its_own_starts_at_its_own_zero_and_ends_at_the_targets():
    points = {
        "unlearned": [Point(0, "as it is", flat(0.2)), Point(1, "x", flat(0.4))],
        "target": [Point(1, "x", flat(0.6))],
    }
    knows = {role: {"probability": flat(0.9), "asked": flat(0.9)} for role in ("target", "unlearned")}
    said, _ = attacking.summarised([attacking.Attacked(attack(family="inside"), points)], knows, policy.read(), 0)
    assert said[0]["recovery"]["value"] == pytest.approx(0.5)
    del points["target"]
    said, found = attacking.summarised([attacking.Attacked(attack(family="inside"), points)], knows, policy.read(), 0)
    assert "target" in said[0]["problem"] and not found


def test_points_that_are_no_numbers_are_no_points():
    bad = Attack("bad", "weights", "s", lambda s, m: [Point(1, "x", np.full(1, np.nan)), Point(2, "y", np.ones(3))])
    found = attacking.carried_out([bad], Subject(None, None, [Row("q", "a")]), lambda _: np.ones(1), lambda _: None)
    assert found == {"bad": "it gave no numbers"}


def test_a_random_attack_is_carried_out_with_each_seed():
    """Seeds 5, 6, 7 give 0.15, 0.20, 0.25 of what is known in the end; one that is not random has one seed."""

    def run(subject: Subject, _: object) -> list[Point]:
        return [Point(4, "4", flat(0.15 + 0.05 * (subject.seed - 5)))]

    subject = Subject(None, None, [Row("q", "a")] * ROWS, seed=5)
    attacks = [Attack("drawn", "weights", "s", run, random=True), Attack("plain", "weights", "s", run)]
    found = attacking.carried_out(attacks, subject, lambda _: flat(0), lambda _: None, seeds=3)
    assert found["drawn"][0].known == pytest.approx(flat(0.2)) and found["drawn"][0].by_seed.shape == (3, ROWS)
    assert found["plain"][0].known == pytest.approx(flat(0.15)) and found["plain"][0].by_seed is None
    points = {"unlearned": found["drawn"], "control": [Point(4, "4", flat(0.1), by_seed=np.stack([flat(0.1)] * 3))]}
    knows = {role: {"probability": flat(v)} for role, v in (("target", 0.9), ("unlearned", 0.1), ("control", 0.1))}
    said, _ = attacking.summarised([attacking.Attacked(attacks[0], points)], knows, policy.read(), 5)
    assert [line["seed"] for line in said[0]["seeds"]] == [5, 6, 7]
    assert [line["recovery"] for line in said[0]["seeds"]] == pytest.approx([0.0625, 0.125, 0.1875])
    assert [line["excess"] for line in said[0]["seeds"]] == pytest.approx([0.0625, 0.125, 0.1875])
    assert said[0]["recovery"]["value"] == pytest.approx(0.125)
    alone, _ = attacking.summarised(
        [attacking.Attacked(attacks[1], {"unlearned": found["plain"]})], knows, policy.read(), 5
    )
    assert alone[0]["seeds"] == []
