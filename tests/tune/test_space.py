"""What is searched: the ranges of a method's signature, its author's, the user's, and what is refused."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import pytest

from expunge.errors import InputError
from expunge.method import METHODS, entries, entry
from expunge.tune import space
from expunge.tune.space import Choices, Range


def of(name, **changes):
    row = entry(name)
    usual = {"given": {}, "training": {}, "search": {}, "rate": 1e-5, "steps": 80}
    return {k: str(v) for k, v in space.of(row, **{**usual, **changes}).items()}


def test_a_signature_the_learning_rate_and_the_steps():
    rate = {"learning_rate": "1e-06:0.0001:log"}
    assert of("blur_npo") == {"beta": "0.01:1:log", "gamma": "0.1:10:log", **rate, "max_steps": "10:80:log"}
    assert of("pdu")["warmup"] == "0:0.99"  # two bounds, of which one is excluded
    assert of("blur_npo", given={"gamma": 2}, training={"max_steps": 5}) == {"beta": "0.01:1:log", **rate}
    assert "learning_rate" not in of("blur_level", rate=None)  # a run finds its own
    assert of("blur_level", rate=None, search={"learning_rate": "1e-5,1e-4"})["learning_rate"] == "1e-05,0.0001"
    assert of("pcgrad", training={"learning_rate": 1, "num_train_epochs": 2}) == {}


@pytest.mark.parametrize("name", sorted(entries()))
def test_both_ends_of_every_method_are_taken(name):
    row = entry(name)
    for end in ("low", "high"):
        found = space.of(row, given={}, training={}, search={}, rate=1e-5, steps=80)
        row.make(**{k: getattr(it, end) for k, it in found.items() if k in row.defaults})


def test_the_user_says_otherwise():
    got = space.of(
        entry("blur_npo"), given={}, training={}, rate=1, steps=80,
        search={"gamma": "0.1,1,1,10", "beta": "0.1", "learning_rate": "1e-5:1e-3:log", "max_steps": "5:20",
                "retain": "nll,kl"},
    )  # fmt: skip
    assert got["gamma"] == Choices((0.1, 1.0, 10.0)) and got["beta"] == Choices((0.1,))
    assert got["learning_rate"] == Range(1e-5, 1e-3, True) and not got["learning_rate"].whole
    assert got["max_steps"] == Range(5, 20) and got["max_steps"].whole and got["retain"] == Choices(("nll", "kl"))


def test_a_key_goes_to_the_methods_that_have_it():
    both = {name: entry(name) for name in ("npo", "pdu")}
    got = space.split({"lr": "1:2", "npo.lr": "3:4", "beta": "5:6", "pdu.step_size": "7"}, both)
    assert got == {
        "npo": {"learning_rate": "3:4", "beta": "5:6"},
        "pdu": {"learning_rate": "1:2", "step_size": "7"},
    }


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({"betta": "1:2"}, "betta is no parameter of npo or pdu and no training argument, did you mean 'beta'"),
        ({"pdu.beta": "1:2"}, "pdu.beta is no parameter of pdu"),
        ({"rmu.layer": "1:2"}, "rmu.layer names no method of these: npo, pdu"),
        ({"num_train_epochs": "1:2"}, "num_train_epochs would give trials unequal budgets"),
        ({"npo.max_steps": "1:2"}, "npo.max_steps would give trials unequal budgets"),
    ],
)
def test_a_key_of_no_method_is_refused(search, sentence):
    with pytest.raises(InputError, match=sentence):
        space.split(search, {name: entry(name) for name in ("npo", "pdu")})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2:1", "2.0 is not below 1.0"),
        ("0:1", "npo: beta='0' does not fit: Input should be greater than 0"),
        ("1:2:lin", "beta=1:2:lin is no range"),
        ("1:2:log:3", "is no range"),
        ("", "beta has an empty value"),
        ("a,b", "npo: beta='a' does not fit"),
    ],
)
def test_a_range_that_is_none_is_refused(text, sentence):
    with pytest.raises(InputError, match=sentence):
        space.read("beta", text, entry("npo"))


def test_a_logarithmic_range_begins_above_0_and_what_is_given_is_not_searched():
    with pytest.raises(InputError, match="begins above 0"):
        space.read("retain_weight", "0:1:log", entry("npo"))
    with pytest.raises(InputError, match="'nll' is no number"):
        space.read("retain", "nll:kl", entry("npo"))
    for given in ({"given": {"beta": 1}}, {"training": {"learning_rate": 1}}):
        with pytest.raises(InputError, match="has the value 1; leave out that or its search"):
            of("npo", search={"beta": "1:2", "learning_rate": "1:2"}, **given)


def test_the_author_of_a_method_says_better_ones(tmp_path):
    file = Path(tmp_path / "mine_search.py")
    file.write_text(
        textwrap.dedent("""
        from expunge import methods
        from expunge.method import method

        @method(search={"strength": "1:4", "often": None})
        def mine_search(*, strength: float = 2.0, often: int = 8, other: float = 3.0):
            return methods.npo()

        def misspelt():
            @method(search={"strenght": "1:4"})
            def mine_misspelt(*, strength: float = 2.0):
                return methods.npo()
    """)
    )
    try:
        got = of(f"{file}:mine_search")
        assert got.pop("learning_rate") and got.pop("max_steps")
        assert got == {"strength": "1:4", "other": "0.3:30:log"}
        with pytest.raises(InputError, match="no parameter 'strenght', which its search names"):
            inspect.unwrap(METHODS["mine_search"].make).__globals__["misspelt"]()
    finally:
        METHODS.pop("mine_search", None)
