"""The registry: names, parameters and their types, and the sentence for each way they can be wrong."""

from __future__ import annotations

import inspect
import runpy
import sys
from functools import partial

import pytest

import expunge
from expunge import losses, methods
from expunge.combine import Bilevel
from expunge.errors import InputError
from expunge.method import Objective, build, entries, entry


def test_a_method_is_a_value_that_knows_its_name_and_all_its_parameters():
    method = methods.blur_npo(gamma=0.5)
    assert (method.name, method.parameters["gamma"], method.parameters["beta"]) == ("blur_npo", 0.5, 0.1)
    assert method.combine == Bilevel(gamma=0.5) and method.streams == ("forget", "retain") and method.reference
    assert not methods.pdu().reference and methods.pdu(retain="kl", budget=0.1).reference
    assert methods.idk_dpo().streams == ("forget", "alternate", "retain")


def test_strings_from_a_command_line_become_the_signatures_types():
    p = build("pdu", {"budget": "0.5", "warmup_steps": "3", "token_average": "true"}).parameters
    assert (p["budget"], p["warmup_steps"], p["token_average"]) == (0.5, 3, True)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("npoo", {}, "did you mean 'npo'"),
        ("npo", {"bta": 1}, "did you mean 'beta'"),
        ("npo", {"beta": "much"}, "beta='much' does not fit"),
        ("npo", {"beta": -1}, "greater than 0"),
        ("npo", {"beta": "nan"}, "finite"),
        ("npo", {"retain": "none"}, "'nll', 'kl' or 'js'"),
        ("pdu", {"warmup": 1.0}, "less than 1"),
        ("blur_npo", {"gamma": -0.1}, "greater than or equal to 0"),
        ("undial", {"retain": "no"}, "'none', 'nll', 'kl' or 'js'"),
        ("constrained", {"forget": "nqo"}, "'npo'"),
        ("blur", {"retain": "kl"}, "take relative=false"),
        ("blur_margin", {"retain": "js"}, "take relative=false"),
        ("pdu", {"retain": "kl"}, "which is 0 with retain='kl'.* give budget="),
        ("constrained", {"retain": "js"}, "which is 0 with retain='js'.* give budget="),
    ],
)
def test_wrong_names_and_values(name, parameters, message):
    with pytest.raises(InputError, match=message):
        build(name, parameters)


@pytest.mark.parametrize("forget", sorted(methods.FORGET))
def test_every_forget_loss_meets_every_combiner(forget):
    """A mixture has the row's own forget loss, with its alternates and learning rate, and one retain loss."""
    own = methods.FORGET[forget]()
    for make in (methods.constrained, methods.blur, methods.pcgrad, methods.mgda, methods.ngdiff):
        mixture = make(forget=forget)
        assert (
            list(mixture.objectives) == ["forget", "retain"] and mixture.objectives["retain"] == methods.RETAIN["nll"]
        )
        assert mixture.objectives["forget"].on == own.objectives["forget"].on
        for field in ("alternate", "refusal", "learning_rate", "lora_learning_rate"):
            assert getattr(mixture, field) == getattr(own, field)
        assert (
            mixture.name == make.__name__ and mixture.parameters["forget"] == forget and type(mixture.combine).__name__
        )


def test_a_mixture_of_a_papers_parts_is_the_papers_row():
    a, b = methods.blur(relative=False), methods.blur_npo()
    assert a.combine == b.combine and same(a, b)
    a, b = methods.constrained(forget="margin", step_size=5.0, multiplier=100.0, warmup=0.5), methods.pdu()
    assert a.combine == b.combine and same(a, b)


def same(a, b):
    """Whether two methods have the same losses with the same parameters (partials are equal by identity only)."""
    return [
        (o.loss.func, o.loss.keywords, o.on, o.reference) if hasattr(o.loss, "func") else o
        for o in a.objectives.values()
    ] == [
        (o.loss.func, o.loss.keywords, o.on, o.reference) if hasattr(o.loss, "func") else o
        for o in b.objectives.values()
    ]


@pytest.mark.parametrize(
    ("weighting", "message"), [("UPGard", "did you mean 'UPGrad'"), ("CAGrad", "cannot be made without arguments")]
)
def test_a_weighting_that_torchjd_lacks_or_cannot_make(weighting, message):
    pytest.importorskip("torchjd", reason="TorchJD is not installed")
    with pytest.raises(InputError, match=message):
        build("torchjd", {"weighting": weighting})


def test_torchjd_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(InputError, match=r"pip install 'expunge\[torchjd\]'"):
        build("torchjd")


def test_a_row_knows_its_first_sentence():
    assert entry("pdu").summary.startswith("Flatten the logit margin")


@pytest.fixture
def nothing_imported(monkeypatch):
    """The table of methods as a process finds it that has imported none."""
    monkeypatch.setattr(expunge, "methods", methods)  # what importing it anew sets
    monkeypatch.setattr("expunge.method.METHODS", {})
    for name in [name for name in sys.modules if name.split(".")[:2] == ["expunge", "methods"]]:
        monkeypatch.delitem(sys.modules, name)


def test_a_method_is_built_by_name_whatever_was_imported(nothing_imported):
    assert build("npo").name == "npo"


def test_a_method_from_outside_cannot_be_first_to_take_a_name_of_the_library(nothing_imported, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from expunge.method import method\n@method()\ndef npo():\n    pass\n")
    with pytest.raises(InputError, match="there is a method 'npo' already"):
        runpy.run_path(str(file), run_name="__main__")


def test_every_default_of_a_loss_is_that_of_the_methods_that_use_it():
    compared = set()
    for name in entries():
        if name == "torchjd":  # it may not be installed
            continue
        for objective in build(name).objectives.values():
            defaults = {k: p.default for k, p in inspect.signature(objective.function).parameters.items()}
            for key, value in getattr(objective.loss, "keywords", {}).items():
                if defaults[key] is not inspect.Parameter.empty:
                    assert value == defaults[key], (name, objective.name, key)
                    compared.add((objective.name, key))
    with_defaults = {
        (f.__name__, k)
        for f in vars(losses).values()
        if inspect.isfunction(f) and f.__module__ == "expunge.losses" and not f.__name__.startswith("_")
        for k, p in inspect.signature(f).parameters.items()
        if p.default is not p.empty
    }
    assert compared == with_defaults


def test_an_objective_knows_the_name_of_its_loss_under_any_number_of_partials():
    once = Objective(partial(losses.wga, beta=2.0), ("forget",))
    twice = Objective(partial(once.loss, beta=1.0), ("forget",))
    for objective in (once, twice):
        assert (objective.name, objective.function, objective.measures_knowledge) == ("wga", losses.wga, False)
    assert Objective(losses.nll, ("retain",)).measures_knowledge
